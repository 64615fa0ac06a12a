import CPKCS11
import KeyManagement

/// Object management (PKCS#11 2.40 §5.7).
extension Session {
    /// Objects that match a template, at most `maximum`.
    func find(_ template: consuming AttributeTemplate, maximum: Int) throws(Failure) -> [CK_OBJECT_HANDLE] {
        var template = template
        let functions = cryptoki.functions
        try cryptoki.check("C_FindObjectsInit") {
            template.withAttributes { functions.pointee.C_FindObjectsInit?(handle, $0, $1) }
        }
        var found: [CK_OBJECT_HANDLE] = []
        var failure: Failure?
        do {
            while found.count < maximum {
                // One at a time: several modules give fewer than asked for while there are more.
                var object: CK_OBJECT_HANDLE = 0
                var count: CK_ULONG = 0
                try cryptoki.check("C_FindObjects") { functions.pointee.C_FindObjects?(handle, &object, 1, &count) }
                if count == 0 { break }
                found.append(object)
            }
        } catch {
            failure = error
        }
        try? cryptoki.check("C_FindObjectsFinal") { functions.pointee.C_FindObjectsFinal?(handle) }
        if let failure { throw failure }
        return found
    }

    /// An attribute's bytes; `nil` where the object has none, or will not show it.
    func attribute(
        _ type: CK_ATTRIBUTE_TYPE, of object: CK_OBJECT_HANDLE, capacity: Int = 1024
    ) throws(Failure) -> [UInt8]? {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 8)
        defer { memory.deallocate() }
        var attribute = CK_ATTRIBUTE(type: type, pValue: memory.baseAddress, ulValueLen: CK_ULONG(capacity))
        do {
            try cryptoki.check("C_GetAttributeValue") {
                cryptoki.functions.pointee.C_GetAttributeValue?(handle, object, &attribute, 1)
            }
        } catch
            where [CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_SENSITIVE].contains(error.returnValue?.rawValue ?? 0)
        {
            return nil
        }
        guard attribute.ulValueLen != CK_ULONG.max, attribute.ulValueLen <= capacity else { return nil }
        return Array(memory.prefix(Int(attribute.ulValueLen)))
    }

    func flag(_ type: CK_ATTRIBUTE_TYPE, of object: CK_OBJECT_HANDLE) throws(Failure) -> Bool? {
        guard let bytes = try attribute(type, of: object, capacity: 1), bytes.count == 1 else { return nil }
        return bytes[0] != 0
    }

    func number(_ type: CK_ATTRIBUTE_TYPE, of object: CK_OBJECT_HANDLE) throws(Failure) -> CK_ULONG? {
        // Room for exactly one number: NSS answers BUFFER_TOO_SMALL to more.
        let size = MemoryLayout<CK_ULONG>.size
        guard let bytes = try attribute(type, of: object, capacity: size), bytes.count == size else { return nil }
        return bytes.withUnsafeBytes { $0.loadUnaligned(as: CK_ULONG.self) }
    }

    func setFlag(_ type: CK_ATTRIBUTE_TYPE, of object: CK_OBJECT_HANDLE, to value: Bool) throws(Failure) {
        var template = AttributeTemplate()
        template.add(type, value)
        try cryptoki.check("C_SetAttributeValue") {
            template.withAttributes { cryptoki.functions.pointee.C_SetAttributeValue?(handle, object, $0, $1) }
        }
    }

    func destroyObject(_ object: CK_OBJECT_HANDLE) throws(Failure) {
        try cryptoki.check("C_DestroyObject") { cryptoki.functions.pointee.C_DestroyObject?(handle, object) }
    }
}

import CPKCS11

/// A template of CK_ATTRIBUTEs together with the memory that they point to (PKCS#11 2.40 §4).
struct AttributeTemplate: ~Copyable {
    private var attributes: [CK_ATTRIBUTE] = []

    mutating func add(_ type: CK_ATTRIBUTE_TYPE, bytes: some Collection<UInt8>) {
        // Never a null pointer, even for an empty value: some modules refuse one.
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 8)
        memory.copyBytes(from: bytes)
        attributes.append(
            CK_ATTRIBUTE(type: type, pValue: memory.baseAddress, ulValueLen: CK_ULONG(bytes.count)))
    }

    mutating func add(_ type: CK_ATTRIBUTE_TYPE, _ value: Bool) { add(type, bytes: [value ? 1 : 0]) }

    mutating func add(_ type: CK_ATTRIBUTE_TYPE, number: CK_ULONG) {
        withUnsafeBytes(of: number) { add(type, bytes: $0) }
    }

    /// The template for one call, which may write to its lengths but not replace its pointers.
    mutating func withAttributes<R>(_ body: (UnsafeMutablePointer<CK_ATTRIBUTE>?, CK_ULONG) -> R) -> R {
        attributes.withUnsafeMutableBufferPointer { body($0.baseAddress, CK_ULONG($0.count)) }
    }

    deinit { for attribute in attributes { attribute.pValue?.deallocate() } }
}

extension PKCS11URI {
    /// Writes the URI in canonical form.
    func text(withPIN: Bool) -> String {
        var path: [String] = []
        func add(_ name: String, _ value: String?) {
            guard let value else { return }
            path.append("\(name)=\(PercentCoding.encode(value.utf8, alphabet: .path))")
        }
        add("token", token.token)
        add("manufacturer", token.manufacturer)
        add("model", token.model)
        add("serial", token.serial)
        add("library-manufacturer", token.libraryManufacturer)
        add("library-description", token.libraryDescription)
        add("library-version", token.libraryVersion)
        add("slot-manufacturer", token.slotManufacturer)
        add("slot-description", token.slotDescription)
        add("slot-id", token.slotID.map { String($0) })
        add("object", object)
        add("type", type?.rawValue)
        // Binary: every byte is encoded, as RFC 7512 §2.3 recommends.
        if let id { path.append("id=\(PercentCoding.encode(id, alphabet: .none))") }

        var query: [String] = []
        func ask(_ name: String, _ value: String?) {
            guard let value else { return }
            query.append("\(name)=\(PercentCoding.encode(value.utf8, alphabet: .query))")
        }
        ask("module-name", module.name)
        ask("module-path", module.path)
        if withPIN, case .file(let file)? = pin { ask("pin-source", file) }
        ask("x-conf", module.configuration)
        ask("x-function-list", module.functionList)
        ask("x-init-string", module.initString)
        return "pkcs11:" + path.joined(separator: ";") + (query.isEmpty ? "" : "?" + query.joined(separator: "&"))
    }
}

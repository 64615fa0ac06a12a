/// Kinds of extended attributes that an inode is known not to have: the kernel asks for security.capability and ACLs of every file, and
/// most have neither. What is known holds because all changes come through here.
struct AbsentAttributes: OptionSet {
    var rawValue: UInt8
    /// Sealed ones of any name.
    static let sealed = AbsentAttributes(rawValue: 1)
    static let accessACL = AbsentAttributes(rawValue: 2)
    static let defaultACL = AbsentAttributes(rawValue: 4)

    static func kind(of name: String) -> AbsentAttributes {
        switch name {
        case "system.posix_acl_access": .accessACL
        case "system.posix_acl_default": .defaultACL
        default: .sealed
        }
    }
}

extension Inode {
    /// What is known to be absent, and a mark for `noteAbsent`.
    var absentAttributes: (AbsentAttributes, mark: UInt32) {
        state.withLock { ($0.absentAttributes, $0.attributeChanges) }
    }

    /// Remembers what a look at the lower node has shown, unless an attribute was set since `mark`.
    func noteAbsent(_ kind: AbsentAttributes, since mark: UInt32) {
        state.withLock { state in
            if state.attributeChanges == mark { state.absentAttributes.insert(kind) }
        }
    }

    /// Called before an attribute is set and after: who looks meanwhile remembers nothing.
    func attributesChange() {
        state.withLock { state in
            state.absentAttributes = []
            state.attributeChanges &+= 1
        }
    }
}

import KeyManagement
import VolumeEngine
import VolumeFormat

/// The roots of one volume.
extension Roots {
    /// Those given, and those that this host remembers of CMKs that none of them stands for: other zones' and former ones. `nil` where
    /// there are none.
    static func of(_ files: VolumeFiles, given: [String], _ record: Host.VolumeRecord?) throws -> Roots? {
        let remembered = Roots(trusted: record?.roots ?? [], names: record?.names ?? [:])
        let trusted = given.isEmpty ? remembered.trusted : given
        guard let first = trusted.first else { return nil }
        let roots = Roots(trusted: trusted, names: remembered.names)
        guard trusted.count == 1 || !given.isEmpty else { return roots }
        let keyrings = try files.zoneIDs().map { try files.keyring($0) }
        do throws(KeyringError) { return try roots.bound(to: keyrings).adding(remembered, to: keyrings) } catch {
            guard case .root(let answer, _) = error else { throw VolumeError.keyring(error) }
            throw Failure(answer, uri: withoutPIN(first))
        }
    }

    /// Together with those of before that stand for a CMK that none of these does, or for none that the keyrings name. The others have
    /// given way: the token, its library or its PIN's file has moved.
    func adding(_ before: Roots, to keyrings: [ZoneKeyring]) -> Roots {
        let named = keyrings.flatMap { $0.cmks.map(\.uri) }
        let kept = before.trusted.filter { root in
            let itsOwn = named.filter { before.match($0) == root }
            return !trusted.contains(root) && (itsOwn.isEmpty || itsOwn.contains { match($0) == nil })
        }
        return Roots(trusted: trusted + kept, names: names.merging(before.names.filter { match($0.key) == nil }) { $1 })
    }

    /// With a single trusted URI that means none of the CMKs in use, it is found out once which of them it is: the only one there is, which
    /// the mount then proves, or those that it unwraps for. From then on it stands for these alone, whatever else comes to be trusted.
    func bound(to keyrings: [ZoneKeyring]) throws(KeyringError) -> Roots {
        var inUse: [(name: String, index: Int, keyring: ZoneKeyring)] = []
        for keyring in keyrings {
            for (index, cmk) in keyring.cmks.enumerated() where cmk.isInUse { inUse.append((cmk.uri, index, keyring)) }
        }
        guard trusted.count == 1, let root = trusted.first, !inUse.contains(where: { match($0.name) != nil }) else {
            return self
        }
        let named = Set(inUse.map(\.name))
        guard named.count > 1 else {
            return Roots(trusted: trusted, names: [String](named).reduce(into: [:]) { $0[$1] = root })
        }
        let cmk: any CustomerMasterKey
        do throws(RootError) { cmk = try Self.open(root) } catch { throw .root(error, uri: root) }
        var names: [String: String] = [:]
        for one in inUse where names[one.name] == nil {
            if try KeyringUnlocking.isCMK(cmk, one.index, of: one.keyring) { names[one.name] = root }
        }
        guard !names.isEmpty else { throw .root(RootError(.notAuthentic, "it unwraps none of the KEKs"), uri: root) }
        return Roots(trusted: trusted, names: names)
    }

    /// As this host keeps them for the next mount: without a PIN.
    var kept: (roots: [String], names: [String: String]?) {
        (trusted.map(Self.kept), names.isEmpty ? nil : names.mapValues(Self.kept))
    }
}

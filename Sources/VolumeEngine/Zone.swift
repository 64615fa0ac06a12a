import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// A zone at run time: its keys while they are here, and the gate through which every operation passes.
///
/// Open, every operation may use the keys. Draining, programs are refused already, and what they wrote before may still be stored.
/// Closed, there are no keys.
package final class Zone: Sendable {
    package let id: ZoneID
    // Leaf lock: held to copy a reference.
    private let state: Mutex<State>
    /// How many times changed keys came to be installed, in whatever state. Added to with `state` locked.
    private let installs = Atomic<UInt64>(0)

    private enum State {
        case open(ZoneKeys)
        case draining(ZoneKeys, Errno)
        /// The errno that operations get meanwhile: EKEYREVOKED, or ENOKEY for a root that cannot be reached.
        case closed(Errno)
    }

    /// Keys that were unwrapped to open a closed zone, and after how many changes of its keyring.
    package struct Unlocked: Sendable {
        let keys: ZoneKeys
        let installs: UInt64
    }

    package init(_ keys: ZoneKeys) {
        id = keys.zone
        state = Mutex(.open(keys))
    }

    /// A zone whose keys could not be had when the volume was mounted.
    package init(closed id: ZoneID, reason: Errno) {
        self.id = id
        state = Mutex(.closed(reason))
    }

    /// The zone's keys for a program's operation, or the reason why it is refused.
    package func keys() throws(Errno) -> ZoneKeys {
        try state.withLock { (state) throws(Errno) in
            switch state {
            case .open(let keys): return keys
            case .draining(_, let reason), .closed(let reason): throw reason
            }
        }
    }

    /// The zone's keys for storing what was accepted before: also while draining.
    package func storingKeys() throws(Errno) -> ZoneKeys {
        try state.withLock { (state) throws(Errno) in
            switch state {
            case .open(let keys), .draining(let keys, _): return keys
            case .closed(let reason): throw reason
            }
        }
    }

    package var isOpen: Bool {
        state.withLock { if case .open = $0 { true } else { false } }
    }

    /// What programs are refused with; `nil` while they are not.
    package var refusal: Errno? {
        state.withLock { state in
            switch state {
            case .open: nil
            case .draining(_, let reason), .closed(let reason): reason
            }
        }
    }

    /// From now on programs are refused. False when the zone was not open.
    package func drain(_ reason: Errno) -> Bool {
        state.withLock { state in
            guard case .open(let keys) = state else { return false }
            state = .draining(keys, reason)
            return true
        }
    }

    /// From now on there are no keys. What still runs has a reference of its own; the caller waits for it by the files' locks.
    package func close(_ reason: Errno) { state.withLock { $0 = .closed(reason) } }

    /// Asked for before the keyring that is to be unlocked: what is installed from then on makes `open` refuse its keys.
    var installCount: UInt64 { installs.load(ordering: .acquiring) }

    /// Opens the zone again, under keys that were unwrapped anew. False, and nothing is changed, where the keyring has been changed since
    /// it was looked at: it has keys then that these lack, and sealed by these it would not open again.
    @discardableResult
    package func open(_ unlocked: Unlocked) -> Bool {
        state.withLock { state in
            guard unlocked.installs == installCount else { return false }
            state = .open(unlocked.keys)
            return true
        }
    }

    /// Puts changed keys in the place of the old ones; their keyring is to be had by now. A zone that is closed stays so.
    package func install(_ keys: ZoneKeys) {
        state.withLock { state in
            installs.add(1, ordering: .releasing)
            switch state {
            case .open: state = .open(keys)
            case .draining(_, let reason): state = .draining(keys, reason)
            case .closed: break
            }
        }
    }
}

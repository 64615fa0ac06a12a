import KeyManagement
import Storage
import Synchronization
import VolumeFormat

/// A zone at run time: its keys while they are here, and the gate through which every operation passes.
package final class Zone: Sendable {
    package let id: ZoneID
    // Leaf lock: held to copy a reference.
    private let state: Mutex<State>

    private enum State {
        case open(ZoneKeys)
        /// The errno that operations get meanwhile: EKEYREVOKED, or ENOKEY for a root that cannot be reached.
        case closed(Errno)
    }

    package init(_ keys: ZoneKeys) {
        id = keys.zone
        state = Mutex(.open(keys))
    }

    /// The zone's keys, or the reason why there are none.
    package func keys() throws(Errno) -> ZoneKeys {
        try state.withLock { (state) throws(Errno) in
            switch state {
            case .open(let keys): return keys
            case .closed(let reason): throw reason
            }
        }
    }
}

import Storage
import VolumeFormat

/// Something on the lower storage that is not as this program left it. The program that asked gets EIO; the observer hears
/// what it was.
package struct Damage: Sendable, Equatable {
    package enum Object: String, Sendable {
        case fileHeader = "file header"
        case fileLength = "file length"
        case page
        case pageTree = "page tree"
        case directoryHeader = "directory header"
        case name
        case linkTarget = "link target"
        case attribute = "extended attribute"
    }

    package var object: Object
    /// Inode number on the lower storage.
    package var inode: UInt64
    /// Page index, where a page is meant.
    package var page: UInt64?
    package var reason: String

    package init(_ object: Object, inode: UInt64, page: UInt64? = nil, reason: String) {
        self.object = object
        self.inode = inode
        self.page = page
        self.reason = reason
    }
}

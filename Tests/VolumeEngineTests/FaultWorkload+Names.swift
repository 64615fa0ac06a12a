import CLinux
import Storage
import TestSupport
import VolumeEngine
import VolumeFormat

/// Hard links, exchanges, trees and attributes: operations of more than one lower call.
extension FaultWorkload {
    static let longDirectory = String(repeating: "d", count: 240)

    /// What the steps below work on; made before anything fails.
    mutating func prepareNames() throws {
        for name in ["linked", "left", "right", "tagged"] {
            let bytes = Array("\(name) content".utf8)
            try test.write(Name(Array(name.utf8)), bytes)
            expect(name, bytes)
        }
        let outer = try test.makeDirectory("outer")
        let inner = try test.makeDirectory("inner", in: outer)
        try test.write("deep", Array("deep content".utf8), in: inner)
        for inode in [inner, outer] { test.volume.forget(inode, count: 1) }
        expectDirectory("outer")
        for (key, value) in [("user.kept", [UInt8](1...40)), ("user.changed", [1]), ("user.gone", [2])] {
            try test.on("tagged") { (inode) throws(Errno) in try test.setAttribute(inode, key, value) }
        }
        expectAttribute("tagged", "user.kept", [UInt8](1...40))
    }

    /// A second name, long, and the first one away again; two files exchanged.
    mutating func changeLinks() {
        let test = test
        let second = String(repeating: "l", count: 220)
        let linked = attempt { () throws(Errno) in
            try test.on("linked") { (inode) throws(Errno) in
                let made = try test.link(inode, as: Name(Array(second.utf8)))
                test.volume.forget(made, count: 1)
            }
        }
        if linked { expectSame(second, as: "linked") } else { doubt(second) }
        if linked {
            let removed = attempt { () throws(Errno) in try test.unlink("linked") }
            if removed { expectGone("linked") } else { doubt("linked") }
        }
        let exchanged = attempt { () throws(Errno) in
            try test.rename("left", to: "right", flags: Int32(LINUX_RENAME_EXCHANGE))
        }
        // Whichever happened, both are there; only what they hold is open.
        if exchanged {
            expectExchanged("left", "right")
        } else {
            doubt("left")
            doubt("right")
        }
    }

    /// A tree moved into a directory with a long name, and that one removed when it is empty again.
    mutating func moveTrees() {
        let test = test
        let long = Name(Array(Self.longDirectory.utf8))
        let made = attempt { () throws(Errno) in
            let inode = try test.makeDirectory(long)
            test.volume.forget(inode, count: 1)
        }
        guard made else { return doubt(Self.longDirectory) }
        expectDirectory(Self.longDirectory)
        let moved = attempt { () throws(Errno) in
            let inode = try test.lookUp(long).inode
            defer { test.volume.forget(inode, count: 1) }
            try test.rename("outer", to: "taken", inside: inode)
            try test.rename("taken", in: inode, to: "back")
        }
        doubtDirectory("outer")
        if moved { expectDirectory("back") } else { doubtDirectory("back") }
        guard moved else { return }
        let removed = attempt { () throws(Errno) in try test.removeDirectory(long) }
        if removed { expectGone(Self.longDirectory) } else { doubtDirectory(Self.longDirectory) }
        _ = attempt { () throws(Errno) in
            let back = try test.lookUp("back").inode
            defer { test.volume.forget(back, count: 1) }
            let inner = try test.lookUp("inner", in: back).inode
            defer { test.volume.forget(inner, count: 1) }
            let file = try test.open("deep", in: inner)
            defer { file.close() }
            try file.write(Array("DEEP".utf8))
            try file.sync()
        }
    }

    /// Values replaced, removed, and one on a directory.
    mutating func replaceAttributes() {
        let test = test
        for (value, name) in [([UInt8](repeating: 9, count: 300), "user.changed"), ([], "user.gone")] {
            _ = attempt { () throws(Errno) in
                try test.on("tagged") { (inode) throws(Errno) in
                    if value.isEmpty {
                        try test.volume.removeAttribute(inode, name)
                    } else {
                        try test.setAttribute(inode, name, value)
                    }
                }
            }
        }
        let tagged = attempt { () throws(Errno) in
            try test.on("back") { (inode) throws(Errno) in try test.setAttribute(inode, "user.tree", [7]) }
        }
        if tagged { expectAttribute("back", "user.tree", [7]) }
    }
}

extension TestVolume {
    /// Calls `body` with the inode of a name in the root.
    func on(_ name: String, _ body: (Inode) throws(Errno) -> Void) throws(Errno) {
        let inode = try lookUp(Name(Array(name.utf8))).inode
        defer { volume.forget(inode, count: 1) }
        try body(inode)
    }
}

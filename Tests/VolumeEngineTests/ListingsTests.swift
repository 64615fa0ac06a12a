import CLinux
import Storage
import Testing

import VolumeEngine

/// What is kept of a listing between two getdents(2).
@Suite struct ListingsTests {
    private let test: TestVolume
    private let names: Set<Name>

    init() throws {
        test = try TestVolume(inMemory: true, features: [])
        names = Set((0..<40).map { Name("name-\($0)") })
        for name in names { try test.create(name).close() }
    }

    /// At most `count` entries from `start` on, and where the next one is.
    private func read(_ count: Int, from start: Int64 = 0, as reader: pid_t) throws(Errno) -> (
        names: [Name], next: Int64
    ) {
        var (found, entries, next) = ([Name](), 0, start)
        try test.volume.readDirectory(test.top, from: start, for: reader) { (item) throws(Errno) in
            guard entries < count else { return false }
            entries += 1
            next = item.next
            if !item.isDot { found.append(Name([UInt8](item.name))) }
            return true
        }
        return (found, next)
    }

    private func readToEnd(from start: Int64, as reader: pid_t) throws(Errno) -> [Name] {
        var (all, position) = ([Name](), start)
        while true {
            let (found, next) = try read(7, from: position, as: reader)
            if next == position { return all }
            all += found
            position = next
        }
    }

    private var kept: Int { test.volume.listings.count }

    @Test func aReaderGoesOnWithoutACall() throws {
        let first = try read(7, as: 1)
        var second: (names: [Name], next: Int64) = ([], 0)
        // All that is left has been read with the first.
        #expect(try calls { second = try read(7, from: first.next, as: 1) } == 0)
        #expect(Set(first.names + second.names + (try readToEnd(from: second.next, as: 1))) == names)
    }

    /// What was left at its place serves, and is read anew. Reader 0 may be anybody.
    @Test(arguments: [(1, 2), (0, 0)] as [(pid_t, pid_t)]) func anotherReaderGoesOnToo(one: pid_t, other: pid_t) throws
    {
        let first = try read(7, as: one)
        var second: (names: [Name], next: Int64) = ([], 0)
        // Where it goes on, and two buffers of records, the last one empty.
        #expect(try calls { second = try read(names.count, from: first.next, as: other) } == 3)
        #expect(Set(first.names + second.names) == names)
        #expect(first.names.count + second.names.count == names.count)
        #expect(kept == 1)
    }

    @Test func whoBeginsAgainSeesWhatIsThere() throws {
        _ = try read(7, as: 1)
        try test.create("new").close()
        let again = try read(7, as: 1)
        // The same thread's older listing is not at hand any more.
        #expect(kept == 1)
        #expect(Set(again.names + (try readToEnd(from: again.next, as: 1))).contains("new"))
    }

    @Test func whatNobodyComesBackForEnds() throws {
        let first = try read(7, as: 1)
        #expect(kept == 1)
        test.volume.listings.age()
        #expect(kept == 1)
        test.volume.listings.age()
        #expect(kept == 0)
        #expect(Set(first.names + (try readToEnd(from: first.next, as: 1))) == names)
        #expect(kept == 0, "the end keeps nothing")
    }

    @Test func fewAreKept() throws {
        for reader in 1...200 { _ = try read(7, as: pid_t(reader)) }
        #expect(kept == 64)
    }
}

import CLinux
import Storage
import TestSupport
import Testing
import VolumeEngine
import VolumeFormat

/// Makes the Nth lower call of a workload fail, for every N. An operation may fail with an errno; whatever succeeded before,
/// or did not touch the same object, is there after the next mount, clean or not, and nothing is damaged.
@Suite struct FailingCallTests {
    static let everyCall = Set(LowerCall.allCases)
    /// LETHEFS_TEST_EVERY_CALL=1 leaves out none, whatever the errno: minutes instead of seconds.
    private static let leavesOutNone = getenv("LETHEFS_TEST_EVERY_CALL") != nil

    private func run(_ fault: FaultInjection.Fault, repeats: Bool, _ ending: Ending, step: Int = 1) throws {
        let step = Self.leavesOutNone ? 1 : step
        let test = try TestVolume(inMemory: true)
        var workload = try FaultWorkload(test)
        try workload.prepare()
        try test.close()
        let base = test.lower
        var nth = 1
        var seen = Int.max
        while nth <= seen {
            let copy = test.temporary["case"]
            try copyTree(base, to: copy)
            let one = try TestVolume(lower: copy, in: test.temporary, cmk: test.cmk)
            var work = workload.again(on: one)
            FaultInjection.arm(nth: nth, of: Self.everyCall, fault: fault, repeats: repeats)
            work.run()
            seen = FaultInjection.disarm()
            if repeats { seen = max(seen, 200) }
            let problems = try work.verify(ending)
            if !problems.isEmpty {
                Issue.record(
                    "call \(nth), \(fault), repeats \(repeats), \(ending): \(problems.joined(separator: "; "))")
            }
            try runProgram("/bin/rm", ["-rf", copy])
            if repeats, work.failures == 0 { break }
            nth += step
        }
        #expect(nth > 100)
    }

    @Test(arguments: [Errno.io, .noSpace], Ending.allCases)
    func onceWithAnErrno(errno: Errno, ending: Ending) throws {
        try run(.errno(errno), repeats: false, ending)
    }

    /// What else a lower file system may answer: a quota, no memory. The errno makes little difference, so not every call.
    @Test(arguments: [(Errno.quota, Ending.crash), (.noMemory, .close)])
    func onceWithAnotherErrno(errno: Errno, ending: Ending) throws {
        try run(.errno(errno), repeats: false, ending, step: 3)
    }

    @Test(arguments: [Errno.io, .noSpace])
    func fromThereOn(errno: Errno) throws { try run(.errno(errno), repeats: true, .crash, step: 5) }

    @Test(arguments: Ending.allCases)
    func shortTransfers(ending: Ending) throws { try run(.short, repeats: false, ending, step: 4) }
}

enum Ending: CaseIterable { case close, crash }

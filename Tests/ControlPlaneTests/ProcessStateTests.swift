import ControlPlane
import Foundation
import Testing

@Suite struct ProcessStateTests {
    private func state(_ pid: Int32) -> Character? {
        (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8))?.split(separator: ")").last?.dropFirst()
            .first
    }

    /// Its first thread has ended, which shows as “Z”; another one is there, and has its descriptors.
    @Test(.timeLimit(.minutes(5))) func theFirstThreadEndsBeforeTheOthers() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        process.arguments = [
            "-c",
            """
            import ctypes, sys, threading
            threading.Thread(target=sys.stdin.read).start()
            ctypes.CDLL(None).pthread_exit(None)
            """,
        ]
        let input = Pipe()
        process.standardInput = input
        try process.run()
        let pid = process.processIdentifier
        while state(pid) != "Z" { usleep(1000) }
        #expect(ProcessState.isRunning(pid))
        try input.fileHandleForWriting.close()
        process.waitUntilExit()
        #expect(!ProcessState.isRunning(pid))
    }
}

import CLinux
import ControlPlane
import Dispatch
import Foundation
import Synchronization
import TestSupport
import Testing

/// The daemon's socket.
@Suite struct ControlServerTests {
    /// Requests that wait for the lower storage take no connection from those that take keys away, or bring them back.
    @Test func requestsThatHangShutNoRevocationOut() throws {
        let directory = try TemporaryDirectory()
        let path = directory["socket"]
        let held = DispatchSemaphore(value: 0)
        let waiting = Atomic<Int>(0)
        let server = try #require(
            ControlServer(path: path) { request in
                guard request.verb == .status else { return Data("{}".utf8) }
                waiting.add(1, ordering: .relaxed)
                held.wait()
                held.signal()
                return Data("{}".utf8)
            })
        #expect(server.start())
        defer {
            held.signal()
            server.stop()
        }
        let clients = DispatchGroup()
        for number in 1...40 {
            Foundation.Thread.detachNewThread {
                clients.enter()
                _ = ControlClient.ask(path, ControlRequest(.status), timeoutSeconds: 30)
                clients.leave()
            }
            for _ in 0..<100 where waiting.load(ordering: .relaxed) < min(number, 32) { usleep(5000) }
        }
        for verb in ["revoke", "restore", "probe"] {
            let answer = ControlClient.ask(path, ControlRequest(ControlVerb(verb)), timeoutSeconds: 5)
            #expect(answer != nil, "\(verb) has no answer")
        }
        #expect(waiting.load(ordering: .relaxed) <= 32)
    }
}

import ControlPlane
import Foundation
import Testing
import VolumeFormat

@Suite struct ZoneClaimsTests {
    /// Ends with its input.
    private func waiter() throws -> (process: Process, input: Pipe) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/cat")
        let input = Pipe()
        process.standardInput = input
        try process.run()
        return (process, input)
    }

    @Test(.timeLimit(.minutes(5))) func allOrNothingAndOnlyForTheLiving() throws {
        let claims = ZoneClaims()
        let (first, second, third) = (ZoneID(rawValue: 0), ZoneID(rawValue: 1), ZoneID(rawValue: 2))
        let (one, other) = (try waiter(), try waiter())
        let (a, b) = (one.process.processIdentifier, other.process.processIdentifier)
        #expect(claims.take([first, second], for: a) == nil)
        #expect(claims.take([second], for: a) == nil, "its own")
        let refused = claims.take([second, third], for: b)
        #expect(refused?.zone == second && refused?.process == a)
        #expect(!claims.isHeld(third) && claims.isHeld(first))
        claims.giveBack([first, second], of: b)
        #expect(claims.isHeld(second), "another one's")
        claims.giveBack([second], of: a)
        #expect(claims.take([second, third], for: b) == nil)
        #expect(claims.take([first], for: b)?.process == a)
        try one.input.fileHandleForWriting.close()
        one.process.waitUntilExit()
        #expect(!claims.isHeld(first) && claims.take([first], for: b) == nil)
        #expect(claims.take([third], for: a)?.process == b)
        // One that is gone holds nothing.
        claims.giveBack([third], of: b)
        #expect(claims.take([third], for: a) == nil && !claims.isHeld(third))
        try other.input.fileHandleForWriting.close()
        other.process.waitUntilExit()
    }
}

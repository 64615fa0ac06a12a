import ControlPlane
import FoundationEssentials
import Storage
import Synchronization
import VolumeEngine

extension ControlVerb {
    /// `rate` (bytes a second) and `threads`, both may be left out: reads and authenticates everything, beside the programs.
    static let check = ControlVerb("check")
    static let checkProgress = ControlVerb("check-progress")
}

extension DaemonControl {
    static let checkHandlers: [ControlVerb: Handler] = [
        .check: { services, arguments in try services.check(arguments) },
        .checkProgress: { services, _ in
            guard let progress = services.checkProgress.withLock({ $0 }) else {
                throw Failure(.invalid, "no check is running")
            }
            return progress
        },
    ]
}

extension DaemonServices {
    /// One at a time; it goes on to its end, also when the command that asked for it has gone.
    func check(_ arguments: [String: String]) throws -> CheckResult {
        let isFree = checkProgress.withLock { progress in
            guard progress == nil else { return false }
            progress = CheckProgress()
            return true
        }
        guard isFree else {
            throw Failure(
                .inUse, "a check of \(request.mountPoint) is running already", remedy: "wait until it has ended")
        }
        defer { checkProgress.withLock { $0 = nil } }
        var options = VolumeCheck.Options()
        options.threads = min(max(arguments["threads"].flatMap(Int.init) ?? 1, 1), 64)
        options.bytesPerSecond = arguments["rate"].flatMap(UInt64.init)
        do {
            let check = try VolumeCheck(mount.volume, options: options) { [self] report in
                checkProgress.withLock { $0 = CheckProgress(report) }
            }
            let report = check.run()
            for finding in report.findings {
                log.error(
                    "check: damaged \(finding.object)\(finding.page.map { ", page \($0)" } ?? ""): \(finding.reason)")
            }
            return CheckResult(report, salvaging: false)
        } catch { throw Failure(.storage, "checking \(request.lower): \(error)") }
    }
}

import CLinux
import Glibc
import KeyManagement

/// The one thread that calls a module, and callers who wait for it with a deadline.
///
/// PKCS#11 calls cannot be cancelled. A caller that gives up leaves its call behind; while that call lasts, others
/// fail at once; when it returns, its result is dropped (secrets wipe themselves) and things go on.
///
/// Lock order: `lock` is a leaf; nothing is called under it.
final class Worker: @unchecked Sendable {
    // `queue`, `stuck` and the jobs' states are reached under `lock` only.
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let workAdded = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let workDone = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var queue: [AnyJob] = []
    private var stuck: AnyJob?
    let running = RunningCall()

    init() throws(RootError) {
        pthread_mutex_init(lock, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(workAdded, &attributes)
        pthread_cond_init(workDone, &attributes)
        pthread_condattr_destroy(&attributes)
        try start()
    }

    /// Runs `body` on the module's thread. Throws `.timedOut` when it does not return in time, or when an earlier
    /// call still has not.
    func run<R: ~Copyable & Sendable>(
        timeoutSeconds: Double, _ body: @escaping @Sendable () throws(RootError) -> R
    ) throws(RootError) -> R {
        let job = Job(body)
        let deadline = Self.deadline(after: timeoutSeconds)
        pthread_mutex_lock(lock)
        if stuck != nil {
            pthread_mutex_unlock(lock)
            throw RootError(.timedOut, "\(runningName) has not returned yet from an earlier request")
        }
        queue.append(job)
        pthread_cond_signal(workAdded)
        while job.state == .queued || job.state == .running {
            var until = deadline
            guard pthread_cond_timedwait(workDone, lock, &until) == ETIMEDOUT, job.state != .done else { continue }
            if job.state == .running { stuck = job }
            job.state = .abandoned
            queue.removeAll { $0 === job }
        }
        // `state` is `.done` or `.abandoned`; only in the latter may the worker still touch the job.
        let outcome = job.state == .done ? job.takeOutcome() : nil
        pthread_mutex_unlock(lock)
        guard let outcome = consume outcome else {
            throw RootError(.timedOut, "\(runningName) did not return within \(timeoutSeconds) s")
        }
        return try outcome.get()
    }

    private var runningName: String { running.current.map { "\($0)" } ?? "the module" }

    private func start() throws(RootError) {
        // Signals are for the program's own threads; a module's thread must not run its handlers.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var thread = pthread_t()
        // A worker lives as long as the process, as its module does.
        let status = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Worker>.fromOpaque(argument).takeRetainedValue().loop() }
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        guard status == 0 else {
            Unmanaged.passUnretained(self).release()
            throw RootError(.moduleUnavailable, "no thread for the module: \(String(cString: strerror(status)))")
        }
        pthread_detach(thread)
    }

    private func loop() -> Never {
        pthread_mutex_lock(lock)
        while true {
            while queue.isEmpty { pthread_cond_wait(workAdded, lock) }
            let job = queue.removeFirst()
            job.state = .running
            pthread_mutex_unlock(lock)
            job.execute()
            pthread_mutex_lock(lock)
            if job.state == .abandoned {
                job.dropOutcome()
                if stuck === job { stuck = nil }
            } else {
                job.state = .done
            }
            pthread_cond_broadcast(workDone)
        }
    }

    private static func deadline(after seconds: Double) -> timespec {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let nanoseconds = Int(min(max(seconds, 0), 86_400) * 1e9) + now.tv_nsec
        return timespec(tv_sec: now.tv_sec + nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    }
}

/// A request, whatever it returns.
private class AnyJob: @unchecked Sendable {
    enum State { case queued, running, done, abandoned }
    // Guarded by the worker's lock.
    var state = State.queued
    func execute() {}
    func dropOutcome() {}
}

/// A request that returns an `R`.
private final class Job<R: ~Copyable & Sendable>: AnyJob, @unchecked Sendable {
    private let body: @Sendable () throws(RootError) -> R
    // Written by the worker before the state becomes `.done`, taken by the caller after.
    private var outcome: Result<R, RootError>?

    init(_ body: @escaping @Sendable () throws(RootError) -> R) { self.body = body }

    override func execute() {
        do { outcome = .success(try body()) } catch { outcome = .failure(error) }
    }
    override func dropOutcome() { outcome = nil }
    func takeOutcome() -> Result<R, RootError>? { outcome.take() }
}

import CLinux

/// A thread that somebody waits for.
struct JoinedThread {
    private let thread: pthread_t

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// `nil` when no thread could be made; then `body` has run here.
    static func start(_ body: @escaping @Sendable () -> Void) -> JoinedThread? {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(Body(body)).toOpaque()
        let failed = pthread_create(
            &thread, nil,
            { context in
                if let context { Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            }, context)
        guard failed == 0 else {
            Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
            return nil
        }
        return JoinedThread(thread: thread)
    }

    /// Nobody waits for it.
    static func detach(_ body: @escaping @Sendable () -> Void) {
        if let started = start(body) { pthread_detach(started.thread) }
    }

    func join() { pthread_join(thread, nil) }
}

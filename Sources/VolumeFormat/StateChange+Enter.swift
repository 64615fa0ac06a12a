extension [StateChange] {
    /// Notes that a key enters a state. Staying in one, and what follows destruction, is no change.
    /// - Returns: whether anything was noted.
    @discardableResult
    package mutating func enter(_ state: KeyState, at now: UInt64) -> Bool {
        guard last?.state != state, last?.state != .destroyed else { return false }
        note(state, at: now)
        return true
    }

    /// Notes the state in which a key's owner shows it. A destruction is noted before the act; one that did not come about goes.
    /// - Returns: whether anything was changed.
    @discardableResult
    package mutating func correct(to state: KeyState, at now: UInt64) -> Bool {
        let before = count
        if state != .destroyed { while last?.state == .destroyed { removeLast() } }
        return enter(state, at: now) || count != before
    }

    /// Adds a change. A history that is full loses the oldest one but its first entry, and the first deactivation: a CMK that was
    /// rotated away stays so, however often it is switched off and on.
    package mutating func note(_ state: KeyState, at now: UInt64) {
        while count >= StateChange.maximumCount {
            let deactivation = firstIndex { $0.state == .deactivated }
            remove(at: deactivation == 1 ? 2 : 1)
        }
        append(StateChange(state, at: now))
    }
}

extension [StateChange] {
    /// Notes that a key entered a state. Staying in one, and what follows destruction, is no change. A history that is full loses what
    /// followed its first entry.
    /// - Returns: whether anything was noted.
    @discardableResult
    package mutating func enter(_ state: KeyState, at now: UInt64) -> Bool {
        guard last?.state != state, last?.state != .destroyed else { return false }
        if count >= StateChange.maximumCount { removeSubrange(1...(count - StateChange.maximumCount + 1)) }
        append(StateChange(state, at: now))
        return true
    }
}

import FoundationEssentials
import FuzzTargets

/// LETHEFS_FUZZ_TARGET names the parser.
private let target: FuzzTarget = {
    let name = ProcessInfo.processInfo.environment["LETHEFS_FUZZ_TARGET"] ?? ""
    guard let target = FuzzTarget(rawValue: name) else { fatalError("LETHEFS_FUZZ_TARGET: no target \"\(name)\"") }
    return target
}()

/// What libFuzzer's main calls for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = target.violation(Array(UnsafeBufferPointer(start: data, count: count))) { fatalError(violation) }
    return 0
}

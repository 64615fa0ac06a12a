// The costs below a request, without any input or output: nanoseconds for each, the best of several runs. See bench/micro.
import Ciphers
import Glibc
import Secrets
import VolumeFormat

func report(_ name: String, bytes: Int? = nil, _ body: () throws -> Void) rethrows {
    let rounds = 20_000
    var best = Double.infinity
    for _ in 0..<7 {
        var start = timespec()
        clock_gettime(CLOCK_MONOTONIC, &start)
        for _ in 0..<rounds { try body() }
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &end)
        let elapsed = Double(end.tv_sec - start.tv_sec) * 1e9 + Double(end.tv_nsec - start.tv_nsec)
        best = min(best, elapsed / Double(rounds))
    }
    let rate = bytes.map { "  \(Int(Double($0) / best * 1000)) MB/s" } ?? ""
    print("\(name): \(Int(best)) ns\(rate)")
}

let payload = Geometry.payload
let plain = UnsafeMutableRawBufferPointer.allocate(byteCount: payload, alignment: 4096)
let sealed = UnsafeMutableRawBufferPointer.allocate(byteCount: payload, alignment: 4096)
let tag = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 16)
let iv = UnsafeMutableRawBufferPointer.allocate(byteCount: 12, alignment: 16)
let aad = UnsafeMutableRawBufferPointer.allocate(byteCount: 32, alignment: 16)
for buffer in [plain, sealed, tag, iv, aad] { buffer.initializeMemory(as: UInt8.self, repeating: 1) }

guard let plainStart = plain.baseAddress, let sealedStart = sealed.baseAddress, let tagStart = tag.baseAddress,
    let ivStart = iv.baseAddress
else { exit(1) }
var context = try AEADContext()
let key = AEADKey(try RandomBytes.key())
try context.loadForSealing(key)
try report("seal a page", bytes: payload) {
    try context.seal(
        iv: ivStart, aad: UnsafeRawBufferPointer(aad), plaintext: UnsafeRawBufferPointer(plain),
        ciphertext: sealedStart,
        tag: tagStart)
}
try context.loadForOpening(key)
try report("open a page", bytes: payload) {
    try context.open(
        iv: ivStart, aad: UnsafeRawBufferPointer(aad), ciphertext: UnsafeRawBufferPointer(sealed), tag: tagStart,
        plaintext: plainStart)
}
try report("an IV's random start") { try RandomBytes.fillPublic(iv) }

let names = try WrapContext(.kwp, encrypt: true, under: try RandomBytes.key())
let name = Array("an-ordinary-name.txt".utf8)
let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 16)
let text = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 16)
guard let textStart = text.baseAddress else { exit(1) }
try name.withUnsafeBytes { name in
    try report("encrypt a name") {
        let count = try names.run(name, room)
        Base64URL.encode(UnsafeRawBufferPointer(rebasing: room[..<count]), into: textStart)
    }
}

let dek = try RandomBytes.key()
let kek = try RandomBytes.key()
let wrapped = try KeyWrap.wrap(dek, under: kek)
try wrapped.withUnsafeBytes { wrapped in
    try report("unwrap a DEK") { _ = try KeyWrap.unwrap(wrapped, under: kek) }
}
try report("derive a file's keys") {
    _ = try DerivedKeys(4, from: dek, salt: (1, 2), info: "lethefs/1 file", version: 1)
}
let slot = DEKSlot(
    version: .first, kekVersion: .first, created: 1, invocationBound: 1 << 20, state: .current,
    wrapped: WrappedKey(wrapped))
let header = FileHeader(
    volume: UniqueID(high: 1, low: 2), file: UniqueID(high: 3, low: 4), zone: .root, state: .closed, size: 5,
    generation: 6, epoch: 7, slots: [slot])
let body = header.authenticatedBytes + [UInt8](repeating: 0, count: 32)
try body.withUnsafeBytes { body in
    try report("parse a header") { _ = try FileHeader(parsing: body) }
}
try report("authenticate a header") { _ = try HMACSHA256.code(key: dek, message: body) }

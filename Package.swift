// swift-tools-version: 6.2
import PackageDescription

/// LETHEFS_WITHOUT_ENCRYPTION=1 (set by bench/build-passthrough alone) builds the pass-through that bench/run compares with: it
/// copies where the program encrypts, has another name, and its volumes and the program's refuse each other.
let withoutEncryption = Context.environment["LETHEFS_WITHOUT_ENCRYPTION"] == "1"

/// Every Swift target: Swift 6 mode, warnings are errors. CLinux is made under _GNU_SOURCE; Glibc and the others have to be, too,
/// or a file that sees both finds two definitions of the same C types (a build from scratch with tests fails on it).
let strict: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6), .treatAllWarnings(as: .error), .unsafeFlags(["-Xcc", "-D_GNU_SOURCE"]),
    ] + (withoutEncryption ? [.define("LETHEFS_WITHOUT_ENCRYPTION")] : [])

let package = Package(
    name: "lethefs",
    products: [
        .executable(name: withoutEncryption ? "lethefs-without-encryption" : "lethefs", targets: ["lethefs"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // C: module maps, what Swift cannot call, and the transports.
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CPKCS11", pkgConfig: "p11-kit-1", providers: [.apt(["libp11-kit-dev"])]),
        .systemLibrary(name: "CFuse3", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
        .target(name: "CFuse", dependencies: ["CFuse3", "CLinux"]),
        .target(name: "CLinux"),
        .target(name: "CHeap"),

        // Swift: a target imports only what stands above it.
        .target(name: "Secrets", dependencies: ["CLinux"], swiftSettings: strict),
        .target(name: "Ciphers", dependencies: ["COpenSSL", "CLinux", "Secrets"], swiftSettings: strict),
        .target(name: "VolumeFormat", swiftSettings: strict),
        .target(name: "Storage", dependencies: ["CLinux"], swiftSettings: strict),
        .target(name: "Confinement", dependencies: ["CLinux", "CSeccomp"], swiftSettings: strict),
        .target(
            name: "KeyManagement", dependencies: ["Secrets", "Ciphers", "VolumeFormat"], swiftSettings: strict),
        .target(
            name: "KeyProviderPKCS11", dependencies: ["CPKCS11", "CLinux", "KeyManagement"], swiftSettings: strict),
        .target(
            name: "VolumeEngine", dependencies: ["Ciphers", "VolumeFormat", "Storage", "KeyManagement"],
            swiftSettings: strict),
        .target(name: "FuseServer", dependencies: ["CFuse", "CLinux", "VolumeEngine"], swiftSettings: strict),
        .target(
            name: "ControlPlane", dependencies: ["CLinux", "KeyManagement", "VolumeEngine"], swiftSettings: strict),
        .executableTarget(
            name: "lethefs",
            dependencies: [
                "CLinux", "Confinement", "FuseServer", "ControlPlane", "KeyProviderPKCS11",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ] + (withoutEncryption ? [] : ["CHeap"]),
            swiftSettings: strict,
            // All functions are bound as the program starts: the table of them is read-only then, and no first call saves registers to a stack.
            linkerSettings: [.unsafeFlags(["-Xlinker", "-z", "-Xlinker", "now"])]),

        // Reads lower trees for Tests/crashlab, with the engine and without FUSE.
        .executableTarget(
            name: "crash-reader", dependencies: ["CLinux", "VolumeEngine", "KeyProviderPKCS11"],
            path: "Tests/crash-reader", swiftSettings: strict),

        .target(
            name: "TestSupport", dependencies: ["Ciphers", "KeyManagement", "VolumeEngine"],
            path: "Tests/TestSupport", swiftSettings: strict),
        // The parsers that read what an attacker may have written; FuzzTests replays what Tests/fuzz/run has found.
        .target(
            name: "FuzzTargets", dependencies: ["VolumeFormat", "KeyProviderPKCS11", "ControlPlane"],
            path: "Tests/FuzzTargets", swiftSettings: strict),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzTargets", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "SecretsTests", dependencies: ["Secrets"], swiftSettings: strict),
        .testTarget(
            name: "CiphersTests", dependencies: ["CLinux", "Ciphers", "TestSupport"], resources: [.copy("Vectors")],
            swiftSettings: strict),
        .testTarget(
            name: "VolumeFormatTests", dependencies: ["VolumeFormat", "TestSupport"], resources: [.copy("Golden")],
            swiftSettings: strict),
        .testTarget(
            name: "ConfinementTests", dependencies: ["Confinement", "TestSupport", "CLinux"], swiftSettings: strict),
        .testTarget(name: "StorageTests", dependencies: ["Storage", "TestSupport", "CLinux"], swiftSettings: strict),
        .testTarget(name: "KeyManagementTests", dependencies: ["KeyManagement", "TestSupport"], swiftSettings: strict),
        // The heap of a test program, counted.
        .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
        .testTarget(
            name: "VolumeEngineTests",
            dependencies: ["VolumeEngine", "ControlPlane", "TestSupport", "AllocationCounter", "CLinux", "Ciphers"],
            swiftSettings: strict),
        .testTarget(
            name: "ControlPlaneTests", dependencies: ["ControlPlane", "TestSupport", "CLinux"], swiftSettings: strict),
        .testTarget(name: "KeyProviderPKCS11Tests", dependencies: ["KeyProviderPKCS11"], swiftSettings: strict),
    ]
)

// Only for Tests/fuzz/run, which links it with libFuzzer's main.
if Context.environment["LETHEFS_FUZZ"] != nil {
    package.targets.append(
        .target(name: "Fuzzer", dependencies: ["FuzzTargets"], path: "Tests/fuzz/Fuzzer", swiftSettings: strict))
}

/// LETHEFS_MICRO=1 (set by bench/micro alone) adds the micro-benchmarks.
if Context.environment["LETHEFS_MICRO"] == "1" {
    package.targets.append(
        .executableTarget(
            name: "lethefs-micro", dependencies: ["Secrets", "Ciphers", "VolumeFormat"], path: "bench/Micro",
            swiftSettings: strict))
}

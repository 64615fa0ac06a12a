import ArgumentParser
import VolumeFormat

/// What `init --integrity` can have a volume notice beyond changed bytes.
enum IntegrityFeature: String, ExpressibleByArgument, CaseIterable {
    /// Older versions of a file's pages.
    case tree
    /// Files and directories exchanged under their names.
    case names

    var flag: FeatureFlags {
        switch self {
        case .tree: .pageTree
        case .names: .places
        }
    }
}

extension FeatureFlags {
    /// As `init --integrity` calls them.
    var integrityNames: [String] { IntegrityFeature.allCases.filter { contains($0.flag) }.map(\.rawValue) }
}

import CLinux

/// open(2)'s flags, as these tests need them.
enum OpenFlags {
    static let readDirectory = O_RDONLY | O_DIRECTORY
    static let create = O_RDWR | O_CREAT
    static let createNew = O_RDWR | O_CREAT | O_EXCL
    static let path = Int32(LINUX_O_PATH)
}

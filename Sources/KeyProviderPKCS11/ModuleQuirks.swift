/// What measured modules do unlike the standard, told by CK_INFO.
struct ModuleQuirks: Sendable {
    /// tpm2-pkcs11 (1.9): objects are read once, at the first login, so that another process's change is never seen;
    /// sessions hold contexts in a TPM that has three of them, which stay occupied when a process ends without C_Finalize.
    /// Its library is finalised after each request, so that each request sees the token as it is.
    var isFinalizedAfterUse = false
    /// tpm2-pkcs11: a key pair that must not sign is refused (and the refused key stays loaded in the TPM).
    var refusesDecryptOnlyRSA = false

    /// SoftHSM2 (2.6.1): an object whose file could not be opened or read once counts as gone from then on. Its library is initialised
    /// anew before "no such key" is believed.
    var mayLoseObjects = false

    init(_ library: LibraryInfo?) {
        guard let library else { return }
        // Its description is "Implementation of PKCS11".
        mayLoseObjects = library.manufacturer == "SoftHSM"
        guard library.description.hasPrefix("TPM2.0 Cryptoki") else { return }
        isFinalizedAfterUse = true
        refusesDecryptOnlyRSA = true
    }
}

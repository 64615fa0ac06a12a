// What another program does to a key, by no code of LetheFS.
// usage: other-process MODULE SYMBOL INITSTRING TOKEN PINFILE LABEL enable|disable|show|destroy|set-pin [NEW]
// show prints "decrypt=0" or "decrypt=1". INITSTRING may be empty.
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ok(const char *call, CK_RV rv) {
    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) return;
    fprintf(stderr, "%s: 0x%lx\n", call, rv);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 8 && argc != 9) return 64;
    void *library = dlopen(argv[1], RTLD_NOW);
    CK_RV (*get)(CK_FUNCTION_LIST **) = library ? dlsym(library, argv[2]) : NULL;
    CK_FUNCTION_LIST *p11;
    if (!get) return 2;
    ok(argv[2], get(&p11));
    struct {
        CK_C_INITIALIZE_ARGS args;
        void *more[4];
    } init;
    memset(&init, 0, sizeof init);
    init.args.flags = CKF_OS_LOCKING_OK;
    init.args.pReserved = *argv[3] ? argv[3] : NULL;
    ok("C_Initialize", p11->C_Initialize(&init));

    CK_SLOT_ID slots[64], slot = (CK_SLOT_ID)-1;
    CK_ULONG count = 64;
    ok("C_GetSlotList", p11->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        size_t length = strlen(argv[4]);
        if (p11->C_GetTokenInfo(slots[i], &info) == CKR_OK && !strncmp((char *)info.label, argv[4], length) &&
            (length == 32 || info.label[length] == ' ' || info.label[length] == 0))
            slot = slots[i];
    }
    if (slot == (CK_SLOT_ID)-1) return 3;
    CK_SESSION_HANDLE session;
    ok("C_OpenSession", p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    char pin[256] = "";
    FILE *file = fopen(argv[5], "r");
    if (!file || !fgets(pin, sizeof pin, file)) return 4;
    pin[strcspn(pin, "\n")] = 0;
    ok("C_Login", p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, strlen(pin)));

    if (!strcmp(argv[7], "set-pin")) {
        if (argc < 9) return 1;
        ok("C_SetPIN", p11->C_SetPIN(session, (CK_BYTE *)pin, strlen(pin), (CK_BYTE *)argv[8], strlen(argv[8])));
        ok("C_Finalize", p11->C_Finalize(NULL));
        return 0;
    }

    CK_ULONG classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY}, done = 0;
    for (int i = 0; i < 3; i++) {
        CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &classes[i], sizeof classes[i]}, {CKA_LABEL, argv[6], strlen(argv[6])}};
        CK_OBJECT_HANDLE key;
        ok("C_FindObjectsInit", p11->C_FindObjectsInit(session, wanted, 2));
        ok("C_FindObjects", p11->C_FindObjects(session, &key, 1, &count));
        ok("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
        if (count == 0) continue;
        CK_BBOOL value = !strcmp(argv[7], "enable");
        CK_ATTRIBUTE decrypt = {CKA_DECRYPT, &value, 1};
        if (!strcmp(argv[7], "destroy")) {
            ok("C_DestroyObject", p11->C_DestroyObject(session, key));
        } else if (classes[i] == CKO_PUBLIC_KEY) {
            continue;
        } else if (!strcmp(argv[7], "show")) {
            ok("C_GetAttributeValue", p11->C_GetAttributeValue(session, key, &decrypt, 1));
            printf("decrypt=%d\n", value);
        } else {
            ok("C_SetAttributeValue", p11->C_SetAttributeValue(session, key, &decrypt, 1));
        }
        done++;
    }
    ok("C_CloseSession", p11->C_CloseSession(session));
    ok("C_Finalize", p11->C_Finalize(NULL));
    return done ? 0 : 5;
}

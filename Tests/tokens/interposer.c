// A PKCS#11 module around another (REAL) that hangs, fails and lies on demand. Files in CONTROL say what to do:
//   hang             C_Decrypt does not return while this exists
//   hang.C_NAME      C_NAME does not return while this exists
//   inject.C_NAME    "RV COUNT": the next COUNT calls of C_NAME return RV
//   extractable      C_GetAttributeValue calls every key extractable
//   log              names of the calls so far, a line each (written, not read)
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static CK_FUNCTION_LIST list, *real;

static int injected(const char *name, CK_RV *rv) {
    char path[4096];
    unsigned long value, count;
    FILE *log = fopen(CONTROL "/log", "a");
    if (log) {
        fprintf(log, "%s\n", name);
        fclose(log);
    }
    snprintf(path, sizeof path, CONTROL "/hang.%s", name);
    while (access(path, F_OK) == 0) usleep(10000);
    snprintf(path, sizeof path, CONTROL "/inject.%s", name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int found = fscanf(file, "%li %lu", (long *)&value, &count) == 2;
    fclose(file);
    if (!found || count == 0) return 0;
    if (count == 1) {
        unlink(path);
    } else if ((file = fopen(path, "w"))) {
        fprintf(file, "%lu %lu", value, count - 1);
        fclose(file);
    }
    *rv = value;
    return 1;
}

#define HOOK(name, parameters, arguments) \
    static CK_RV hooked_##name parameters { \
        CK_RV rv; \
        return injected(#name, &rv) ? rv : real->name arguments; \
    }
HOOK(C_Initialize, (void *args), (args))
HOOK(C_Finalize, (void *reserved), (reserved))
HOOK(C_GetSlotList, (CK_BYTE present, CK_SLOT_ID *slots, CK_ULONG *count), (present, slots, count))
HOOK(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *session),
     (slot, flags, app, notify, session))
HOOK(C_Login, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_BYTE *pin, CK_ULONG count), (session, user, pin, count))
HOOK(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count), (session, template, count))
HOOK(C_SetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *template, CK_ULONG count),
     (session, key, template, count))
HOOK(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object), (session, object))
HOOK(C_EncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key), (session, mechanism, key))
HOOK(C_Encrypt, (CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG inCount, CK_BYTE *out, CK_ULONG *outCount),
     (session, in, inCount, out, outCount))
HOOK(C_DecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key), (session, mechanism, key))

static CK_RV hooked_C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG inCount, CK_BYTE *out, CK_ULONG *outCount) {
    CK_RV rv;
    while (access(CONTROL "/hang", F_OK) == 0) usleep(10000);
    return injected("C_Decrypt", &rv) ? rv : real->C_Decrypt(session, in, inCount, out, outCount);
}

static CK_RV hooked_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *template,
                                        CK_ULONG count) {
    CK_RV rv;
    if (injected("C_GetAttributeValue", &rv)) return rv;
    rv = real->C_GetAttributeValue(session, key, template, count);
    if (access(CONTROL "/extractable", F_OK) == 0)
        for (CK_ULONG i = 0; i < count; i++)
            if (template[i].type == CKA_EXTRACTABLE && template[i].pValue) *(CK_BBOOL *)template[i].pValue = CK_TRUE;
    return rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out) {
    if (!real) {
        void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
        CK_RV (*get)(CK_FUNCTION_LIST **) = library ? dlsym(library, "C_GetFunctionList") : NULL;
        if (!get || get(&real) != CKR_OK) return CKR_GENERAL_ERROR;
        list = *real;
        list.C_GetFunctionList = C_GetFunctionList;
        list.C_Initialize = hooked_C_Initialize;
        list.C_Finalize = hooked_C_Finalize;
        list.C_GetSlotList = hooked_C_GetSlotList;
        list.C_OpenSession = hooked_C_OpenSession;
        list.C_Login = hooked_C_Login;
        list.C_FindObjectsInit = hooked_C_FindObjectsInit;
        list.C_GetAttributeValue = hooked_C_GetAttributeValue;
        list.C_SetAttributeValue = hooked_C_SetAttributeValue;
        list.C_DestroyObject = hooked_C_DestroyObject;
        list.C_EncryptInit = hooked_C_EncryptInit;
        list.C_Encrypt = hooked_C_Encrypt;
        list.C_DecryptInit = hooked_C_DecryptInit;
        list.C_Decrypt = hooked_C_Decrypt;
    }
    *out = &list;
    return CKR_OK;
}

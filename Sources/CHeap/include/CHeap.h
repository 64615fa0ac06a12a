#pragma once

/// Linked into the program, it wipes every block of the heap as the block is freed: names, values of attributes, link targets, PINs,
/// and what libraries copied of them are gone once nobody holds them. See heap.c. There is nothing to call.

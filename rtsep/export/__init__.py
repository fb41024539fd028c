"""The compiled hop without Python: a C library, a plug-in, a page, from the LLVM code of the same kernels."""

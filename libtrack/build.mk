# libtrack itself is declared first, in the Makefile: the other areas link it.

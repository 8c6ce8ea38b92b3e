#include "client/table.h"

#include "libtrack/base/mem.h"

struct table {
    size_t columns, count, size;
    char **cells;
};

struct table *table_new(size_t columns)
{
    struct table *table = trk_xcalloc(1, sizeof(*table));
    table->columns = columns;
    return table;
}

void table_free(struct table *table)
{
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}

void table_add(struct table *table, const char *text)
{
    if (table->count == table->size) {
        table->size = table->size == 0 ? 64 : table->size * 2;
        table->cells = trk_xrealloc(table->cells, table->size * sizeof(*table->cells));
    }
    char *cell = trk_xstrdup(text);
    for (char *p = cell; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == '\x7f') {
            *p = '?';
        }
    }
    table->cells[table->count++] = cell;
}

/* Code points: names and versions have no wide characters. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text & 0xc0) != 0x80) {
            width++;
        }
    }
    return width;
}

void table_print(const struct table *table, FILE *out)
{
    trk_autofree int *widths = trk_xcalloc(table->columns, sizeof(*widths));
    for (size_t i = 0; i < table->count; i++) {
        int width = width_of(table->cells[i]);
        int *widest = &widths[i % table->columns];
        *widest = width > *widest ? width : *widest;
    }
    for (size_t i = 0; i < table->count; i++) {
        bool is_last = (i + 1) % table->columns == 0;
        (void)fputs(table->cells[i], out);
        if (is_last) {
            (void)fputc('\n', out);
        } else {
            (void)fprintf(out, "%*s", widths[i % table->columns] - width_of(table->cells[i]) + 2,
                          "");
        }
    }
}

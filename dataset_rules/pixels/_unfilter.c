/* Undo the filters of an 8-bit grey PNG.
 *
 * In masks most rows resemble the row above, so most filtered bytes are zero. Runs of eight zeros
 * are decoded eight pixels at a time; libpng predicts each pixel separately.
 *
 * Source: W3C, Portable Network Graphics, third edition, section 9 (filters).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STEP 8 /* pixels per step */

static uint64_t load8(const uint8_t *at) {
    uint64_t bytes;
    memcpy(&bytes, at, STEP);
    return bytes;
}

static uint8_t paeth_predictor(int left, int up, int corner) {
    const int to_left = abs(up - corner), to_up = abs(left - corner);
    const int to_corner = abs(left + up - 2 * corner);
    if (to_left <= to_up && to_left <= to_corner) return (uint8_t)left;
    return (uint8_t)(to_up <= to_corner ? up : corner);
}

static void undo_paeth(const uint8_t *row, const uint8_t *up, uint8_t *out, Py_ssize_t width) {
    uint8_t left = 0, corner = 0;
    for (Py_ssize_t i = 0; i < width;) {
        if (left == corner) { /* then the prediction is `up` */
            for (; i + STEP <= width && load8(row + i) == 0; i += STEP) memcpy(out + i, up + i, STEP);
        } else { /* while the row above stays constant, the prediction is `left` */
            const uint64_t flat = corner * UINT64_C(0x0101010101010101);
            for (; i + STEP <= width && load8(row + i) == 0 && load8(up + i) == flat; i += STEP)
                memset(out + i, left, STEP);
        }
        if (i > 0) left = out[i - 1], corner = up[i - 1];
        const Py_ssize_t end = i + STEP < width ? i + STEP : width;
        for (; i < end; i++) {
            left = out[i] = (uint8_t)(row[i] + paeth_predictor(left, up[i], corner));
            corner = up[i];
        }
    }
}

/* Returns 0 if the filter type is invalid. */
static int undo(int filter, const uint8_t *row, const uint8_t *up, uint8_t *out, Py_ssize_t width) {
    uint8_t left = 0;
    switch (filter) {
    case 0:
        memcpy(out, row, (size_t)width);
        return 1;
    case 1:
        for (Py_ssize_t i = 0; i < width; i++) left = out[i] = (uint8_t)(row[i] + left);
        return 1;
    case 2:
        for (Py_ssize_t i = 0; i < width; i++) out[i] = (uint8_t)(row[i] + up[i]);
        return 1;
    case 3:
        for (Py_ssize_t i = 0; i < width; i++)
            left = out[i] = (uint8_t)(row[i] + ((left + up[i]) >> 1));
        return 1;
    case 4:
        undo_paeth(row, up, out, width);
        return 1;
    default:
        return 0;
    }
}

/* The buffers must match height and width. */
static int undo_all(const uint8_t *row, uint8_t *out, Py_ssize_t height, Py_ssize_t width) {
    uint8_t *blank = calloc((size_t)width, 1);
    const uint8_t *up = blank;
    int done = blank != NULL;
    for (Py_ssize_t y = 0; done && y < height; y++, row += width + 1, up = out, out += width)
        done = undo(row[0], row + 1, up, out, width);
    free(blank);
    return done;
}

static PyObject *unfilter(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer rows, pixels;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*w*n:unfilter", &rows, &pixels, &width)) return NULL;
    int done = 0;
    if (width > 0 && pixels.len % width == 0 && rows.len == pixels.len + pixels.len / width) {
        Py_BEGIN_ALLOW_THREADS
        done = undo_all(rows.buf, pixels.buf, pixels.len / width, width);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&pixels);
    if (done) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "not filtered rows of this width");
    return NULL;
}

static PyMethodDef functions[] = {
    {"unfilter", unfilter, METH_VARARGS, "Decode filtered rows into a pixel buffer."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_unfilter", NULL, 0, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__unfilter(void) { return PyModule_Create(&definition); }

"""Writes figures.tsv: what the headers inside the torch-npu wheel say of each name in it.

    pip download torch-npu==2.14.0 --no-deps --python-version 311 --only-binary=:all:
    python extract.py torch_npu-2.14.0-*.whl

The names are those of the file as it is; their figures are asked of a C++ compiler (`c++`). A name that the headers lack,
or whose arguments have another form, does not compile.
"""

import pathlib
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).parent
FOLDER = "torch_npu/include/"

PROGRAM = r"""
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>
#include "acl/acl.h"
#include "hccl/hccl.h"

template <class T> const char *word() {
    if (std::is_void<T>::value) return "void";
    if (std::is_pointer<T>::value) return "ptr";
    if (std::is_enum<T>::value || std::is_same<T, int32_t>::value) return "i32";
    if (std::is_same<T, uint32_t>::value) return "u32";
    if (std::is_same<T, uint64_t>::value || std::is_same<T, size_t>::value) return "u64";
    return "?";
}

template <class R, class... A> void function(const char *name, R (*)(A...)) {
    std::printf("function %s\t%s", name, word<R>());
    const char *words[] = {"", word<A>()...};
    for (size_t i = 1; i <= sizeof...(A); i++) std::printf(" %s", words[i]);
    std::printf("\n");
}

int main() {
"""


def line(name):
    kind, rest = name.split(" ", 1)
    if kind == "function":
        return f'function("{rest}", &{rest});'
    if kind == "offsetof":
        asked = "offsetof({}, {})".format(*rest.split("."))
    else:
        asked = f"({rest})" if kind == "value" else f"{kind}({rest})"
    return f'std::printf("{name}\\t%lld\\n", (long long){asked});'


def main():
    figures = HERE / "figures.tsv"
    names = [row.split("\t")[0] for row in figures.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(sys.argv[1]) as wheel:
        wheel.extractall(folder, [n for n in wheel.namelist() if n.startswith(FOLDER + "third_party/")])
        source, program = f"{folder}/figures.cc", f"{folder}/figures"
        pathlib.Path(source).write_text(PROGRAM + "\n".join(map(line, names)) + "\n}\n")
        include = f"{folder}/{FOLDER}"
        headers = [f"-I{include}{part}" for part in ("", "third_party/acl/inc", "third_party/hccl/inc")]
        # Nothing is linked: the addresses of the functions serve their types alone.
        flags = ["-std=c++17", "-O2", *headers, "-Wl,--unresolved-symbols=ignore-all"]
        subprocess.run(["c++", *flags, source, "-o", program], check=True)
        out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    figures.write_text(out)


if __name__ == "__main__":
    main()

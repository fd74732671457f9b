// What asserts.cc is written in: fields by place and size, functions by the types that they take and give.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "acl/acl.h"
#include "hccl/hccl.h"

// Whether a value of the type `Ours` may be passed where the headers say `Theirs`. An enum is a number of its size; a
// structure that only CANN looks into is `void` behind a pointer, const or not as the headers say.
template <class Theirs, class Ours> struct Passes {
    static constexpr bool test() {
        if constexpr (std::is_enum_v<Theirs> && std::is_integral_v<Ours>) {
            return sizeof(Theirs) == sizeof(Ours);
        } else {
            return std::is_same_v<Theirs, Ours> || (std::is_void_v<Ours> && std::is_class_v<Theirs>);
        }
    }
    static constexpr bool value = test();
};

template <class Theirs, class Ours> struct Passes<Theirs *, Ours *> {
    static constexpr bool value = std::is_const_v<Theirs> == std::is_const_v<Ours> &&
        Passes<std::remove_const_t<Theirs>, std::remove_const_t<Ours>>::value;
};

template <class...> struct List {};

template <class... Theirs, class... Ours> struct Passes<List<Theirs...>, List<Ours...>> {
    static constexpr bool test() {
        if constexpr (sizeof...(Theirs) == sizeof...(Ours)) {
            return (Passes<Theirs, Ours>::value && ...);
        } else {
            return false;
        }
    }
    static constexpr bool value = test();
};

template <class A, class... As, class B, class... Bs> struct Passes<A(As...), B(Bs...)> {
    static constexpr bool value = Passes<List<A, As...>, List<B, Bs...>>::value;
};

#define FIELD(type, field, offset, bytes) \
    static_assert(offsetof(type, field) == offset && sizeof(type::field) == bytes)
#define FUNCTION(name, ...) static_assert(Passes<decltype(name), __VA_ARGS__>::value)

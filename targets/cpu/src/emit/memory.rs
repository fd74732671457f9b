//! Addresses, loads and stores; float storage of 16 bits is widened to `f32` in registers.

use super::{Elem, Emitter, Ty, Val};

impl Emitter {
    /// The address of element `index` of an array of `elem`.
    pub fn at(&mut self, base: Val, elem: Elem, index: Val) -> Val {
        if index.known == Some(0) {
            return base;
        }
        // Both 16-bit floats are addressed as integers, so that no pass meets a type it may not know.
        let unit = if elem == Elem::Ptr { Elem::I64 } else { elem.as_int() };
        self.op(Ty::PTR, format_args!("llvm.getelementptr {base}[{index}] : (!llvm.ptr, i64) -> !llvm.ptr, {unit}"))
    }

    /// The address `bytes` after `base`.
    pub fn at_byte(&mut self, base: Val, bytes: Val) -> Val {
        self.at(base, Elem::I8, bytes)
    }

    pub fn load(&mut self, at: Val, ty: Ty) -> Val {
        let align = ty.elem.bytes();
        self.op(ty, format_args!("llvm.load {at} {{alignment = {align} : i64}} : !llvm.ptr -> {ty}"))
    }

    pub fn store(&mut self, value: Val, at: Val) {
        let ty = value.ty;
        let align = ty.elem.bytes();
        self.line(format_args!("llvm.store {value}, {at} {{alignment = {align} : i64}} : {ty}, !llvm.ptr"));
    }

    /// Loads the lanes of `mask`; the others are `rest`.
    pub fn load_masked(&mut self, at: Val, mask: Val, rest: Val) -> Val {
        let ty = rest.ty;
        let align = ty.elem.bytes();
        self.op(
            ty,
            format_args!(
                "llvm.intr.masked.load {at}, {mask}, {rest} {{alignment = {align} : i32}} : (!llvm.ptr, {}, {ty}) -> {ty}",
                mask.ty
            ),
        )
    }

    /// Stores the lanes of `mask`.
    pub fn store_masked(&mut self, value: Val, at: Val, mask: Val) {
        let ty = value.ty;
        // LLVM 22 joins a truncation and a masked store of one constant lane into a store of the untruncated lane.
        if self.is_first_lane_alone(mask) {
            let first = self.extract(value, 0);
            return self.store(first, at);
        }
        let align = ty.elem.bytes();
        self.line(format_args!(
            "llvm.intr.masked.store {value}, {at}, {mask} {{alignment = {align} : i32}} : {ty}, {} into !llvm.ptr",
            mask.ty
        ));
    }

    /// Loads `lanes` elements stored as `elem` (0: one scalar), floats as `f32`; lanes outside `mask` are zero.
    pub fn load_wide(&mut self, at: Val, elem: Elem, lanes: u32, mask: Option<Val>) -> Val {
        let stored = match elem {
            Elem::Bf16 => Elem::I16,
            other => other,
        };
        let ty = Ty::vector(stored, lanes);
        let raw = match mask {
            None => self.load(at, ty),
            Some(mask) => {
                let zero = if stored.is_float() { self.float(ty, 0.0) } else { self.int(ty, 0) };
                self.load_masked(at, mask, zero)
            }
        };
        match elem {
            Elem::Bf16 => self.bf16_bits_to_f32(raw),
            Elem::F16 => self.extend_float(raw, Elem::F32),
            _ => raw,
        }
    }

    /// Loads `lanes` neighbouring `bf16` as half as many words, held as `f32` bits; lanes outside `mask` are zero.
    pub fn load_pairs(&mut self, at: Val, lanes: u32, mask: Val) -> Val {
        let ty = Ty::vector(Elem::I16, lanes);
        let zero = self.int(ty, 0);
        let halves = self.load_masked(at, mask, zero);
        let words = Ty::vector(Elem::F32, lanes / 2);
        self.op(words, format_args!("vector.bitcast {halves} : {ty} to {words}"))
    }

    /// Asks for the cache line at `at`, which need not exist.
    pub fn prefetch(&mut self, at: Val) {
        self.line(format_args!(
            "\"llvm.intr.prefetch\"({at}) <{{rw = 0 : i32, hint = 3 : i32, cache = 1 : i32}}> : (!llvm.ptr) -> ()"
        ));
    }

    /// Stores an `f32` (or an integer as it is) as `elem`, rounding to nearest even; only the lanes of `mask`.
    pub fn store_narrow(&mut self, value: Val, at: Val, elem: Elem, mask: Option<Val>) {
        let stored = match elem {
            Elem::Bf16 => self.f32_to_bf16_bits(value),
            Elem::F16 => self.round_float(value, Elem::F16),
            _ => value,
        };
        match mask {
            None => self.store(stored, at),
            Some(mask) => self.store_masked(stored, at, mask),
        }
    }

    /// Scratch on the stack, 64-byte aligned, at the head of the function.
    pub fn stack(&mut self, elem: Elem, count: u64) -> Val {
        let count = self.i64(count as i64);
        let value = self.fresh(Ty::PTR);
        let text = format!(
            "    {value} = llvm.alloca {count} x {} {{alignment = 64 : i64}} : (i64) -> !llvm.ptr\n",
            elem.as_int()
        );
        self.body.entry.push_str(&text);
        value
    }
}

impl Emitter {
    /// The addresses of elements at a vector of indices.
    pub fn pointers(&mut self, base: Val, elem: Elem, indices: Val) -> Val {
        let ty = Ty::vector(Elem::Ptr, indices.ty.lanes);
        let unit = elem.as_int();
        self.op(ty, format_args!("llvm.getelementptr {base}[{indices}] : (!llvm.ptr, {}) -> {ty}, {unit}", indices.ty))
    }

    /// Loads through a vector of addresses, floats as `f32`; lanes outside `mask` are zero.
    pub fn gather(&mut self, pointers: Val, elem: Elem, mask: Val) -> Val {
        let stored = if elem == Elem::Bf16 { Elem::I16 } else { elem };
        let ty = Ty::vector(stored, pointers.ty.lanes);
        let zero = if stored.is_float() { self.float(ty, 0.0) } else { self.int(ty, 0) };
        let align = stored.bytes();
        let raw = self.op(
            ty,
            format_args!(
                "llvm.intr.masked.gather {pointers}, {mask}, {zero} {{alignment = {align} : i32}} : ({}, {}, {ty}) -> {ty}",
                pointers.ty, mask.ty
            ),
        );
        match elem {
            Elem::Bf16 => self.bf16_bits_to_f32(raw),
            Elem::F16 => self.extend_float(raw, Elem::F32),
            _ => raw,
        }
    }

    /// Stores through a vector of addresses, in the lanes of `mask`.
    pub fn scatter(&mut self, value: Val, pointers: Val, elem: Elem, mask: Val) {
        let stored = match elem {
            Elem::Bf16 => self.f32_to_bf16_bits(value),
            Elem::F16 => self.round_float(value, Elem::F16),
            _ => value,
        };
        let align = elem.bytes();
        self.line(format_args!(
            "llvm.intr.masked.scatter {stored}, {pointers}, {mask} {{alignment = {align} : i32}} : {}, {} into {}",
            stored.ty, mask.ty, pointers.ty
        ));
    }
}

impl Emitter {
    /// Declares read-only data of the module.
    pub fn global(&mut self, name: &str, elem: Elem, bytes: &[u8]) {
        let count = bytes.len() as u64 / elem.bytes();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let text = format!(
            "  llvm.mlir.global internal constant @{name}(dense<\"0x{digits}\"> : tensor<{count}x{elem}>) \
             {{addr_space = 0 : i32, alignment = 64 : i64}} : !llvm.array<{count} x {elem}>\n"
        );
        self.functions.insert(name.to_owned(), text);
    }

    pub fn global_address(&mut self, name: &str) -> Val {
        self.op(Ty::PTR, format_args!("llvm.mlir.addressof @{name} : !llvm.ptr"))
    }
}

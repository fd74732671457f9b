//! The CPU that code is generated for: its name for LLVM, its vector width, and what the machine that runs it must have.

use crate::error::Error;

/// One CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// LLVM's `target-cpu`.
    pub name: String,
    /// LLVM's `target-features`, beyond what `name` implies.
    pub features: String,
    /// What the runtime checks before it loads the code, as `std::arch::is_x86_feature_detected!` spells it.
    pub required: Vec<&'static str>,
    /// `f32` lanes of a full vector.
    pub lanes: u32,
    /// Vector registers.
    pub registers: u32,
    /// Products of `bf16` take words of two, as `vdpbf16ps` does.
    pub bf16_dot: bool,
}

const V3: [&str; 9] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt"];
const V4: [&str; 5] = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
const BF16: &str = "avx512bf16";

impl Cpu {
    /// The CPU a user named.
    pub fn parse(name: &str) -> Result<Cpu, Error> {
        match name {
            "native" => Cpu::native(),
            "x86-64-v3" => Ok(Cpu::v3()),
            "x86-64-v4" => Ok(Cpu::v4(false)),
            "x86-64-v4-bf16" => Ok(Cpu::v4(true)),
            _ => Err(Error::UnknownCpu { name: name.to_owned() }),
        }
    }

    /// The best level that this machine has. Only levels are generated for, not exact machines: the same plan then comes
    /// from every machine of a level.
    pub fn native() -> Result<Cpu, Error> {
        let missing: Vec<&str> = V3.into_iter().filter(|feature| !host_has(feature)).collect();
        if !missing.is_empty() {
            return Err(Error::WeakHost { missing: missing.join(", ") });
        }
        match V4.into_iter().all(host_has) {
            false => Ok(Cpu::v3()),
            true => Ok(Cpu::v4(host_has(BF16))),
        }
    }

    fn v3() -> Cpu {
        Cpu {
            name: "x86-64-v3".to_owned(),
            features: String::new(),
            required: V3.to_vec(),
            lanes: 8,
            registers: 16,
            bf16_dot: false,
        }
    }

    fn v4(bf16_dot: bool) -> Cpu {
        let mut required = [V3.as_slice(), V4.as_slice()].concat();
        if bf16_dot {
            required.push(BF16);
        }
        Cpu {
            name: "x86-64-v4".to_owned(),
            features: if bf16_dot { format!("+{BF16}") } else { String::new() },
            required,
            lanes: 16,
            registers: 32,
            bf16_dot,
        }
    }

    /// [`Cpu::parse`]'s `x86-64-v4-bf16` made of the instructions of `x86-64-v3`: the same kernels, slower, for tests on
    /// machines that have no more.
    pub fn wide_on_v3() -> Cpu {
        let wide = Cpu::v4(true);
        Cpu { lanes: wide.lanes, registers: wide.registers, bf16_dot: wide.bf16_dot, ..Cpu::v3() }
    }

    /// What [`Cpu::parse`] calls it.
    pub fn level(&self) -> String {
        let bf16 = if self.has_bf16_instructions() { "-bf16" } else { "" };
        format!("{}{bf16}", self.name)
    }

    /// Whether `vdpbf16ps` and its like are there.
    pub fn has_bf16_instructions(&self) -> bool {
        self.required.contains(&BF16)
    }

    /// Whether the machine that runs this can run code for `self`.
    pub fn runs_here(&self) -> bool {
        self.required.iter().all(|feature| host_has(feature))
    }
}

#[cfg(target_arch = "x86_64")]
fn host_has(feature: &str) -> bool {
    match feature {
        "avx" => is_x86_feature_detected!("avx"),
        "avx2" => is_x86_feature_detected!("avx2"),
        "bmi1" => is_x86_feature_detected!("bmi1"),
        "bmi2" => is_x86_feature_detected!("bmi2"),
        "f16c" => is_x86_feature_detected!("f16c"),
        "fma" => is_x86_feature_detected!("fma"),
        "lzcnt" => is_x86_feature_detected!("lzcnt"),
        "movbe" => is_x86_feature_detected!("movbe"),
        "popcnt" => is_x86_feature_detected!("popcnt"),
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512cd" => is_x86_feature_detected!("avx512cd"),
        "avx512dq" => is_x86_feature_detected!("avx512dq"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        BF16 => is_x86_feature_detected!("avx512bf16"),
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_has(_: &str) -> bool {
    false
}

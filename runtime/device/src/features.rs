//! Processor features by name, as this machine has them.

/// Those of `required` that this machine lacks or that nobody here has heard of.
pub fn missing_features<'a>(required: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    required.into_iter().filter(|name| !has(name)).collect()
}

macro_rules! detect {
    ($name:ident: $($feature:tt)*) => {
        match $name {
            $($feature => std::arch::is_x86_feature_detected!($feature),)*
            _ => false,
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn has(name: &str) -> bool {
    detect!(name:
        "adx" "aes" "avx" "avx2" "avx512bf16" "avx512bitalg" "avx512bw" "avx512cd" "avx512dq" "avx512f" "avx512fp16"
        "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vl" "avx512vnni" "avx512vp2intersect" "avx512vpopcntdq"
        "avxifma" "avxneconvert" "avxvnni" "avxvnniint16" "avxvnniint8" "bmi1" "bmi2" "cmpxchg16b" "f16c" "fma" "fxsr"
        "gfni" "lzcnt" "movbe" "pclmulqdq" "popcnt" "rdrand" "rdseed" "sha" "sse" "sse2" "sse3" "sse4.1" "sse4.2" "sse4a"
        "ssse3" "tbm" "vaes" "vpclmulqdq" "xsave" "xsavec" "xsaveopt" "xsaves"
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named() {
        assert_eq!(missing_features(["sse2", "avx1024", "sse"]), ["avx1024"]);
    }
}

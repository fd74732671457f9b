//! A machine: what its devices and links can do, read from a TOML file with the units in the names.

use serde::Deserialize;
use types::DType;

use crate::efficiency::{Crooked, Efficiency};

/// One kind of device, and how servers are built of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub name: String,
    /// Values of `--target` whose plans run on it, beside its own name.
    #[serde(default)]
    pub targets: Vec<String>,
    pub device: Device,
    pub server: Server,
    /// Between the devices of one server.
    pub inside: Link,
    /// Between servers; only a machine that its ranks share has none.
    pub network: Option<Link>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub memory_gib: f64,
    pub memory_gb_per_s: f64,
    /// The share of the bandwidth that kernels reach.
    pub memory_efficiency: f64,
    /// The same for kernels that move bf16, where these reach less: a CPU converts it on the way.
    pub memory_bf16_efficiency: Option<f64>,
    pub matmul_f32_tflops: f64,
    pub matmul_bf16_tflops: f64,
    /// The share of the rate that products reach.
    pub matmul_efficiency: Efficiency,
    /// The same for products in bf16, where these reach another.
    pub matmul_bf16_efficiency: Option<Efficiency>,
    /// What is done on single elements, where an addition counts as one operation, in kernels that move f32 alone.
    pub vector_f32_tflops: f64,
    /// The same in kernels that move bf16, which may have to be converted.
    pub vector_bf16_tflops: f64,
    /// Single elements are worked on beside products, by other units.
    pub vector_beside_matmul: bool,
    /// From the end of one kernel to the beginning of the next.
    pub launch_us: f64,
    /// To and from the host's memory.
    pub host_gb_per_s: f64,
    /// What a communicator takes of the device's memory beside the plan's buffers.
    #[serde(default)]
    pub communicator_mib: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub devices: usize,
    /// Ranks share one device: each has its share of the rates.
    #[serde(default)]
    pub shared: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// What one device sends, to all others together.
    pub gb_per_s: f64,
    /// What one device sends to one other, where that is less.
    pub gb_per_s_per_peer: Option<f64>,
    /// The share of the bandwidth that large messages reach.
    pub efficiency: f64,
    /// Of one round of messages.
    pub latency_us: f64,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MachineError {
    #[error("{0}")]
    Syntax(String),
    #[error("there is no [network], and ranks do not share the device: `server.shared` is not true")]
    Network,
    #[error("`{figure}` is {value}, and must be {range}")]
    Figure { figure: &'static str, value: String, range: &'static str },
    #[error("`{figure}` {crooked}")]
    Efficiency { figure: &'static str, crooked: Crooked },
}

const FILES: &[&str] = &[
    include_str!("../machines/ascend-910b1.toml"),
    include_str!("../machines/ascend-910b2.toml"),
    include_str!("../machines/ascend-910b3.toml"),
    include_str!("../machines/ascend-910b4.toml"),
    include_str!("../machines/ascend-910c.toml"),
    include_str!("../machines/ascend-910_9381.toml"),
    include_str!("../machines/ascend-910_9372.toml"),
    include_str!("../machines/ascend-910_9362.toml"),
];

/// The machine of that name, or the one that runs plans for the target of that name.
pub fn built_in(name: &str) -> Option<Machine> {
    all().find(|m| m.name == name || m.targets.iter().any(|t| t == name))
}

/// What work weighs against traffic on machines that train such models, for plans that name none.
///
/// # Panics
/// If its file is no machine, which the tests of this crate find.
pub fn typical() -> Machine {
    built_in("ascend-910b3").expect("a built-in machine")
}

pub fn built_in_names() -> Vec<String> {
    all().map(|m| m.name).collect()
}

fn all() -> impl Iterator<Item = Machine> {
    FILES.iter().filter_map(|text| Machine::parse(text).ok())
}

impl Machine {
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let machine: Self = toml::from_str(text).map_err(|e| MachineError::Syntax(e.to_string()))?;
        machine.check()?;
        Ok(machine)
    }

    fn check(&self) -> Result<(), MachineError> {
        let d = &self.device;
        let network = self.between()?;
        let positive = [
            ("device.memory_gib", d.memory_gib),
            ("device.memory_gb_per_s", d.memory_gb_per_s),
            ("device.matmul_f32_tflops", d.matmul_f32_tflops),
            ("device.matmul_bf16_tflops", d.matmul_bf16_tflops),
            ("device.vector_f32_tflops", d.vector_f32_tflops),
            ("device.vector_bf16_tflops", d.vector_bf16_tflops),
            ("device.host_gb_per_s", d.host_gb_per_s),
            ("server.devices", self.server.devices as f64),
            ("inside.gb_per_s", self.inside.gb_per_s),
            ("inside.gb_per_s_per_peer", self.inside.gb_per_s_per_peer.unwrap_or(1.0)),
            ("network.gb_per_s", network.gb_per_s),
            ("network.gb_per_s_per_peer", network.gb_per_s_per_peer.unwrap_or(1.0)),
        ];
        let shares = [
            ("device.memory_efficiency", d.memory_efficiency),
            ("device.memory_bf16_efficiency", d.memory_bf16_efficiency.unwrap_or(1.0)),
            ("inside.efficiency", self.inside.efficiency),
            ("network.efficiency", network.efficiency),
        ];
        let others = [
            ("device.launch_us", d.launch_us),
            ("device.communicator_mib", d.communicator_mib),
            ("inside.latency_us", self.inside.latency_us),
            ("network.latency_us", network.latency_us),
        ];
        let refuse = |figure, value: f64, range| Err(MachineError::Figure { figure, value: value.to_string(), range });
        for (figure, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(figure, value, "more than 0");
            }
        }
        for (figure, value) in shares {
            if !(value > 0.0 && value <= 1.0) {
                return refuse(figure, value, "more than 0 and at most 1");
            }
        }
        for (figure, value) in others {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(figure, value, "0 or more");
            }
        }
        let products = [
            ("device.matmul_efficiency", Some(&d.matmul_efficiency)),
            ("device.matmul_bf16_efficiency", d.matmul_bf16_efficiency.as_ref()),
        ];
        for (figure, efficiency) in products {
            let checked = efficiency.map_or(Ok(()), Efficiency::check);
            checked.map_err(|crooked| MachineError::Efficiency { figure, crooked })?;
        }
        Ok(())
    }

    /// The link between servers.
    fn between(&self) -> Result<&Link, MachineError> {
        match &self.network {
            Some(link) => Ok(link),
            None if self.server.shared => Ok(&self.inside),
            None => Err(MachineError::Network),
        }
    }

    /// Between servers, if `far`, or else inside one.
    pub fn link(&self, far: bool) -> &Link {
        self.network.as_ref().filter(|_| far).unwrap_or(&self.inside)
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.device.memory_gib * f64::from(1 << 30)) as u64
    }

    pub fn communicator_bytes(&self) -> u64 {
        (self.device.communicator_mib * f64::from(1 << 20)) as u64
    }

    /// FLOP in a second of products of this type, on the whole device and at best.
    pub fn peak(&self, dtype: DType) -> f64 {
        match dtype {
            DType::BF16 => self.device.matmul_bf16_tflops * 1e12,
            _ => self.device.matmul_f32_tflops * 1e12,
        }
    }

    /// FLOP in a second that the products of a kernel with `flop` of them reach on the whole device.
    pub fn products(&self, dtype: DType, flop: f64) -> f64 {
        let device = &self.device;
        let narrow = device.matmul_bf16_efficiency.as_ref().filter(|_| dtype == DType::BF16);
        self.peak(dtype) * narrow.unwrap_or(&device.matmul_efficiency).of(flop)
    }

    /// Operations on single elements in a second, in kernels that move this type, on the whole device.
    pub fn vector(&self, dtype: DType) -> f64 {
        match dtype {
            DType::BF16 => self.device.vector_bf16_tflops * 1e12,
            _ => self.device.vector_f32_tflops * 1e12,
        }
    }

    /// Bytes in a second that kernels which move this type reach on the whole device.
    pub fn bandwidth(&self, dtype: DType) -> f64 {
        let device = &self.device;
        let narrow = device.memory_bf16_efficiency.filter(|_| dtype == DType::BF16);
        device.memory_gb_per_s * 1e9 * narrow.unwrap_or(device.memory_efficiency)
    }

    /// The share of a device that one of `world` ranks has.
    pub fn share(&self, world: usize) -> f64 {
        if self.server.shared { 1.0 / world.min(self.ranks_per_server(world)).max(1) as f64 } else { 1.0 }
    }

    /// How many ranks stand on one server, in the order of ranks.
    pub fn ranks_per_server(&self, world: usize) -> usize {
        if self.server.shared { world } else { self.server.devices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_built_in_machines_are_read_and_each_figure_has_its_source() {
        for text in FILES {
            let machine = Machine::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            let figures =
                text.lines().filter(|l| l.contains(" = ") && !l.starts_with("name") && !l.starts_with("targets"));
            for line in figures {
                assert!(line.contains('#'), "{}: `{line}` does not say where it comes from", machine.name);
            }
        }
        let mut names = built_in_names();
        assert_eq!(names.len(), FILES.len());
        names.dedup();
        assert_eq!(names.len(), FILES.len(), "a name stands for one machine");
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_figure_and_its_range() {
        let good = FILES[0];
        let check = |from: &str, to: &str, want: &str| {
            let line = good.lines().find(|l| l.starts_with(from)).expect("a line");
            let error = Machine::parse(&good.replacen(line, to, 1)).expect_err("a wrong file").to_string();
            assert!(error.contains(want), "{error}");
        };
        check("memory_gib", "memory_gib = 0", "`device.memory_gib` is 0, and must be more than 0");
        check(
            "vector_f32_tflops",
            "vector_f32_tflops = -1",
            "`device.vector_f32_tflops` is -1, and must be more than 0",
        );
        check(
            "matmul_efficiency",
            "matmul_efficiency = 46",
            "`device.matmul_efficiency` has the share 46, which must be",
        );
        check(
            "matmul_efficiency",
            "matmul_efficiency = [[1, 0.4], [0.1, 0.5]]",
            "`device.matmul_efficiency` has the point at 0.1",
        );
        check("matmul_efficiency", "matmul_efficiency = []", "`device.matmul_efficiency` has no point");
        check("matmul_efficiency", "matmul_efficiency = [0.5]", "neither a share nor a list of points [gflop, share]");
        check("memory_gib", "memory_gb = 64", "unknown field `memory_gb`");
        check("memory_gib", "", "missing field `memory_gib`");
    }
}

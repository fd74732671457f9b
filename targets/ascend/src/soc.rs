//! The processors that mmc writes for: names, memory, and how machines are built of them.

/// Numbers from CANN's platform files (hicann/runtime, platform_config).
#[derive(Debug, PartialEq, Eq)]
pub struct Soc {
    /// As `--target` names it.
    pub name: &'static str,
    /// As `--soc_version` of atc names it.
    pub version: &'static str,
    pub memory_gib: u64,
    pub series: Series,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// Eight processors a server.
    A2,
    /// Super pods of servers with eight packages, of which each has two dies; a die is a rank.
    A3,
}

impl Series {
    pub fn devices_per_server(self) -> usize {
        match self {
            Series::A2 => 8,
            Series::A3 => 16,
        }
    }
}

impl Soc {
    pub fn memory_bytes(&self) -> u64 {
        self.memory_gib << 30
    }
}

pub const SOCS: &[Soc] = &[
    Soc { name: "ascend-910b1", version: "Ascend910B1", memory_gib: 64, series: Series::A2 },
    Soc { name: "ascend-910b2", version: "Ascend910B2", memory_gib: 64, series: Series::A2 },
    Soc { name: "ascend-910b3", version: "Ascend910B3", memory_gib: 64, series: Series::A2 },
    Soc { name: "ascend-910b4", version: "Ascend910B4", memory_gib: 32, series: Series::A2 },
    Soc { name: "ascend-910b4-1", version: "Ascend910B4-1", memory_gib: 32, series: Series::A2 },
    Soc { name: "ascend-910_9391", version: "Ascend910_9391", memory_gib: 64, series: Series::A3 },
    Soc { name: "ascend-910_9392", version: "Ascend910_9392", memory_gib: 64, series: Series::A3 },
    Soc { name: "ascend-910_9381", version: "Ascend910_9381", memory_gib: 64, series: Series::A3 },
    Soc { name: "ascend-910_9382", version: "Ascend910_9382", memory_gib: 64, series: Series::A3 },
    Soc { name: "ascend-910_9372", version: "Ascend910_9372", memory_gib: 64, series: Series::A3 },
    Soc { name: "ascend-910_9362", version: "Ascend910_9362", memory_gib: 64, series: Series::A3 },
];

pub fn soc(name: &str) -> Option<&'static Soc> {
    SOCS.iter().find(|s| s.name == name)
}

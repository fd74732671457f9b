//! How even the stages of published models are, beside the best of all ways to cut their blocks.

use std::collections::BTreeMap;

use plan::{Op, Plan};
use tests::binaries::{command, model, run};

/// A preset with sizes that are small, and so many blocks that every cut can still be looked at.
const PRESETS: [(&str, &str, &str, usize); 6] = [
    ("wan2.2.mm", "t2v-a14b", "--set F=5 --set H=60 --set W=104 --set S=512", 9),
    ("wan2.2.mm", "ti2v-5b", "--set F=5 --set H=44 --set W=80 --set S=512", 9),
    ("wan2.2.mm", "wan2.1-t2v-1.3b", "--set F=3 --set H=60 --set W=104 --set S=512", 9),
    ("qwen3.mm", "0.6b", "", 24),
    ("qwen3.mm", "4b", "", 24),
    ("qwen3.mm", "8b", "", 24),
];

/// Seconds of kernels of each stage on the first micro-batch.
fn stages((file, preset, sizes, blocks): (&str, &str, &str, usize), pp: usize) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.bin");
    let words = format!(
        "--preset {preset} --set LAYERS={blocks} {sizes} --dtype bf16 --target none --machine ascend-910b3 --pp {pp} \
         --microbatches 2"
    );
    let mut compile = command("mmc");
    compile.arg("compile").arg(model(file)).args(words.split_whitespace()).arg("-o").arg(&path);
    run(&mut compile).expect("compiles");
    let (plan, _) = Plan::from_bytes(&std::fs::read(&path).expect("a plan")).expect("reads");
    let machine = cost::built_in("ascend-910b3").expect("a machine");
    let mut seconds: BTreeMap<u32, f64> = BTreeMap::new();
    for (class, body) in plan.classes.iter().zip(&plan.programs[0].bodies) {
        for unit in body.units.iter().filter(|unit| unit.microbatch == 0) {
            let of = seconds.entry(unit.stage).or_default();
            for instruction in &body.instructions[unit.first as usize..unit.end as usize] {
                if let Op::Launch(launch) = &instruction.op {
                    *of += cost::seconds_of_launch(&machine, &plan, class, body, launch);
                }
            }
        }
    }
    assert_eq!(seconds.len(), pp);
    seconds.into_values().collect()
}

/// The slowest stage of the best cut of these blocks.
fn best(blocks: &[f64], stages: usize) -> f64 {
    if stages == 1 {
        return blocks.iter().sum();
    }
    let cuts = (1..=blocks.len() + 1 - stages).map(|first| {
        let here: f64 = blocks[..first].iter().sum();
        here.max(best(&blocks[first..], stages - 1))
    });
    cuts.fold(f64::INFINITY, f64::min)
}

#[test]
fn the_slowest_stage_is_within_5_percent_of_the_best_cut() {
    let mut table = String::new();
    for case in PRESETS {
        let (_, preset, _, blocks) = case;
        // One block a stage: what each takes, embedding and head included.
        let blocks = stages(case, blocks);
        for pp in [2, 3, 4, 5] {
            let slowest = stages(case, pp).into_iter().fold(0.0, f64::max);
            let best = best(&blocks, pp);
            table += &format!("{preset:16} pp {pp}: slowest {:6.2} ms, best {:6.2} ms\n", slowest * 1e3, best * 1e3);
            assert!(slowest <= 1.05 * best, "{table}");
        }
    }
    println!("{table}");
}

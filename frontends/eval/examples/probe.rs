//! Prints the IR of a task, or why there is none.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&args[1]).expect("a file");
    let mut sources = diag::Sources::default();
    let file = sources.add(args[1].as_str(), text);
    let set = args[4..].iter().filter_map(|s| s.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
    let preset = (args[3] != "-").then(|| args[3].clone());
    let options = eval::Options { preset, task: args[2].clone(), set, batch: None };
    let start = std::time::Instant::now();
    let result = eval::evaluate(&mut sources, file, &options, &mut |_| None);
    let took = start.elapsed();
    match result {
        Ok(e) => {
            println!("{}", e.module);
            println!("{:?}", ir::verify(&e.module));
            println!("{took:?} {} parameters", e.module.parameter_count());
        }
        Err(errors) => println!("{}", diag::render(&errors, &sources, false)),
    }
}

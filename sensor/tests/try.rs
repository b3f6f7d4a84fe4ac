use weir_sensor::kernel::{Replay, ReplayLink, ReplayProgram, Settings};
#[test]
fn load() {
    for p in [ReplayProgram::Xdp, ReplayProgram::TcEgress, ReplayProgram::TcIngress] {
        match Replay::through(p, &Settings::default(), ReplayLink::Ethernet) {
            Ok(mut r) => {
                r.frame(&[0u8; 60], 5).unwrap();
                let d = r.finish().unwrap();
                println!("{p:?} {:?}", d.points);
            }
            Err(e) => {
                let t = e.to_string();
                println!("{p:?} {}", &t[..t.len().min(6000)]);
                println!("...");
                println!("{}", &t[t.len().saturating_sub(3000)..]);
            }
        }
    }
}

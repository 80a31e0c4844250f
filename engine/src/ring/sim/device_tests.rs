//! What a simulated file keeps, loses and finds space for.

use super::*;

fn file() -> SimFile {
    SimFile::new(FileSpec { space_sectors: Some(2), ..FileSpec::direct(4096) })
}

fn dirty(file: &mut SimFile, sector: usize, byte: u8) {
    let bytes = sector * 512..(sector + 1) * 512;
    file.cache[bytes].fill(byte);
    file.sectors[sector].dirty = true;
}

#[test]
fn flush_saves_what_completed_before_it_started() {
    let mut kept = 0;
    for seed in 0..64 {
        let mut file = file();
        dirty(&mut file, 0, 1);
        file.settle(0, 512, 5);
        dirty(&mut file, 1, 2);
        file.settle(512, 512, 7);
        file.flush(6, &mut Random::new(seed));
        assert_eq!(file.durable[0], 1);
        kept += u32::from(file.durable[512] == 2);
    }
    assert!((10..54).contains(&kept), "the later write is saved by the toss of a coin");
}

#[test]
fn f37_failed_flush_loses_sectors_and_the_next_one_does_not_save_them() {
    let mut lost = 0;
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let mut file = file();
        dirty(&mut file, 0, 1);
        file.settle(0, 512, 1);
        file.fail_flush(&mut random);
        file.flush(9, &mut random);
        assert_eq!(file.cache[0], 1, "reads still see it");
        file.crash(&mut random);
        lost += u32::from(file.cache[0] == 0);
    }
    assert!((10..54).contains(&lost));
}

#[test]
fn f40_unsynced_sectors_survive_by_the_toss_of_a_coin() {
    let mut survived = 0;
    for seed in 0..64 {
        let mut file = file();
        for sector in 0..8 {
            dirty(&mut file, sector, 1);
        }
        file.crash(&mut Random::new(seed));
        survived += file.cache.chunks(512).filter(|sector| sector[0] == 1).count();
    }
    assert!((150..362).contains(&survived));
}

#[test]
fn f42_writes_find_space_until_it_is_used_up() {
    let mut file = file();
    assert_eq!(file.claim_space(512, 512), 512);
    assert_eq!(file.claim_space(0, 2048), 1024);
    assert_eq!(file.claim_space(0, 1024), 1024);
    assert_eq!(file.claim_space(2048, 512), 0);
    assert_eq!(file.claim_space(9000, 512), 0);
}

impl SimDevice {
    /// A write that is over at once.
    pub(crate) fn write_now(&self, file: usize, offset_bytes: u64, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let len_bytes = length(bytes.len());
        let memory = MemRange::of_raw(bytes.as_mut_ptr(), len_bytes, None).unwrap();
        self.with(file, |file| file.write_from(offset_bytes, &memory, 0..len_bytes));
    }
}

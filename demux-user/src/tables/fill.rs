//! How full the maps are.

use aya_obj::generated::bpf_map_type;
use demux_common::layout::map;

use super::{Tables, entries::cannot_read};
use crate::{Result, bpf::BatchReader};

impl Tables {
    /// How many entries of a map are in use: of arrays, which hold everything always, those that are not
    /// all zero. `None` where the kernel shows them to nobody.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn entries_in_use(&self, name: &str) -> Result<Option<u64>> {
        match name {
            map::XSKS => return Ok(None),
            map::CPUS => return Ok(Some(self.cpus()?.len() as u64)),
            _ => {}
        }
        let failed = |source| cannot_read(name, source);
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(failed)?;
        let is_array = is_array(self.info(name)?.map_type);
        let mut entries = 0;
        reader
            .for_each(|_, value| {
                entries += u64::from(!is_array || value.iter().any(|&byte| byte != 0));
            })
            .map_err(failed)?;
        Ok(Some(entries))
    }
}

fn is_array(map_type: u32) -> bool {
    map_type == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32
        || map_type == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32
}

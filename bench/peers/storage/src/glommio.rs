//! glommio 0.9: its own direct or buffered files, a task per read in flight.

use std::io;
use std::rc::Rc;

use ::glommio::io::{BufferedFile, DmaFile};
use ::glommio::{LocalExecutorBuilder, Placement};

use crate::work::{BLOCK, Spent, Work, whole};

/// Its errors cannot cross threads, and so are no sources of an `io::Error`.
fn failed<T>(error: ::glommio::GlommioError<T>) -> io::Error {
    io::Error::other(error.to_string())
}

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Rc<Work>) -> io::Result<Spent> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth((work.depth as usize * 2).next_power_of_two())
        .make()
        .map_err(failed)?;
    executor.run(async {
        let mut tasks = Vec::new();
        if work.direct {
            let file = Rc::new(DmaFile::open(&work.path).await.map_err(failed)?);
            for _ in 0..work.depth {
                let (file, work) = (Rc::clone(&file), Rc::clone(work));
                tasks.push(::glommio::spawn_local(async move {
                    while let Some(offset) = work.next() {
                        let read = file.read_at_aligned(offset, BLOCK).await;
                        whole(read.map(|read| read.len()).map_err(failed))?;
                    }
                    Ok::<_, io::Error>(())
                }));
            }
        } else {
            let file = Rc::new(BufferedFile::open(&work.path).await.map_err(failed)?);
            for _ in 0..work.depth {
                let (file, work) = (Rc::clone(&file), Rc::clone(work));
                tasks.push(::glommio::spawn_local(async move {
                    while let Some(offset) = work.next() {
                        let read = file.read_at(offset, BLOCK).await;
                        whole(read.map(|read| read.len()).map_err(failed))?;
                    }
                    Ok::<_, io::Error>(())
                }));
            }
        }
        for task in tasks {
            task.await?;
        }
        Ok(work.spent())
    })
}

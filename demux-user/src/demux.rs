//! The way into the library: the instance of a network namespace, and what can be done with it.

use demux_common::binding::Binding;

use crate::{
    Result,
    bindings::{self, BindRequest, Selector},
    bpffs::BpfFs,
    connections::{Reader, Row},
    filter::Filter,
    kill::{self, Extent, Killed},
    netns::NetworkNamespace,
    ports::{AllocateRequest, Allocation, Allocator},
    ports_in_use::{self, PortsInUse, Wanted},
    state::{Instance, Lock},
    tables::{Access, Tables},
};

/// The instance of the network namespace of the calling thread.
///
/// Nothing is held open between calls: whoever loads, unloads or binds meanwhile finds no lock, and
/// each call finds what there is then. Reading needs no more than membership of the group demux,
/// changing what the command of the same name needs.
#[derive(Debug)]
pub struct Demux {
    bpffs: BpfFs,
}

impl Demux {
    /// The instance below the BPF file system that the environment names, or the usual one.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
    /// use demux_user::{Demux, Error};
    ///
    /// # fn main() { nowhere(|| {
    /// match Demux::open() {
    ///     Err(Error::NotLoaded | Error::NoBpfFs(_)) => println!("demux load IFACE comes first"),
    ///     Err(error) => return Err(error),
    ///     Ok(_) => unreachable!(),
    /// }
    /// # Ok(()) }); }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`](crate::Error::NotLoaded), [`Error::NoBpfFs`](crate::Error::NoBpfFs).
    pub fn open() -> Result<Self> {
        Self::open_at(BpfFs::find(None)?)
    }

    /// The instance below a BPF file system.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`](crate::Error::NotLoaded).
    pub fn open_at(bpffs: BpfFs) -> Result<Self> {
        let demux = Self { bpffs };
        demux.tables()?;
        Ok(demux)
    }

    /// Makes a binding, which holds from the next packet on, and returns its name.
    ///
    /// # Errors
    ///
    /// As [`bindings::bind_all`].
    pub fn bind(&self, request: &BindRequest) -> Result<String> {
        bindings::bind(&self.bpffs, request)
    }

    /// Makes several bindings, or none.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
    /// # fn main() { example(|| {
    /// use demux_user::{Demux, Error, bindings::{BindRequest, Destination}};
    /// use demux_common::protocol::Protocol;
    ///
    /// let demux = Demux::open()?;
    /// let dns = |protocol| BindRequest::new(protocol, ":53", Destination::Stack);
    /// demux.bind_all(&[dns(Protocol::Tcp)?, dns(Protocol::Udp)?])?;
    ///
    /// let again = demux.bind_all(&[
    ///     BindRequest::new(Protocol::Tcp, ":80", Destination::Stack)?,
    ///     dns(Protocol::Tcp)?,
    /// ]);
    /// assert!(matches!(again, Err(Error::AddressInUse { .. })));
    /// assert_eq!(demux.bindings()?.len(), 2);
    /// # Ok(()) }); }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bindings::bind_all`].
    pub fn bind_all(&self, requests: &[BindRequest]) -> Result<Vec<String>> {
        bindings::bind_all(&self.bpffs, requests)
    }

    /// Ends a binding, and returns its name.
    ///
    /// # Errors
    ///
    /// As [`bindings::unbind`].
    pub fn unbind(&self, selector: &Selector) -> Result<String> {
        bindings::unbind(&self.bpffs, selector)
    }

    /// Ends the binding with a name.
    ///
    /// # Errors
    ///
    /// As [`bindings::unbind`].
    pub fn unbind_name(&self, name: &str) -> Result<()> {
        let selector = Selector::Name(name.to_owned());
        self.unbind(&selector).map(|_name| ())
    }

    /// The bindings, each with its index in the tables, in no order.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read.
    pub fn bindings(&self) -> Result<Vec<(u16, Binding)>> {
        self.tables()?.bindings()
    }

    /// Reserves a source port for a connection to come.
    ///
    /// Whoever reserves many keeps an [`Allocator`] instead, which looks for the tables once.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
    /// # fn main() { example(|| {
    /// use demux_user::{Demux, ports::AllocateRequest};
    /// use demux_common::{ports::Algorithm, protocol::Protocol};
    ///
    /// let demux = Demux::open()?;
    /// let request = AllocateRequest {
    ///     algorithm: Some(Algorithm::Sequential),
    ///     ..AllocateRequest::new(Protocol::Tcp, "127.0.0.7:80".parse().unwrap())
    /// };
    /// let first = demux.allocate(&request)?;
    /// let second = demux.allocate(&request)?;
    /// assert_eq!((first.local.port(), second.local.port()), (1025, 1026));
    /// demux.release(&first)?;
    /// assert_eq!(demux.allocate(&request)?.local.port(), 1025);
    /// # Ok(()) }); }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Allocator::allocate`].
    pub fn allocate(&self, request: &AllocateRequest) -> Result<Allocation> {
        self.allocator()?.allocate(request)
    }

    /// Gives back a port that was reserved and not used.
    ///
    /// # Errors
    ///
    /// [`Error::NotReserved`](crate::Error::NotReserved).
    pub fn release(&self, allocation: &Allocation) -> Result<()> {
        self.allocator()?.release(allocation)
    }

    /// What reserves ports without looking for the tables each time.
    ///
    /// # Errors
    ///
    /// As [`Allocator::open`].
    pub fn allocator(&self) -> Result<Allocator> {
        Allocator::open(&self.bpffs)
    }

    /// The connections that a filter matches, written as for `demux connections`; all of them where
    /// it is empty.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
    /// # fn main() { example(|| {
    /// use std::net::{TcpListener, TcpStream};
    /// use demux_user::Demux;
    ///
    /// let demux = Demux::open()?;
    /// let server = TcpListener::bind("127.0.0.1:0").unwrap();
    /// let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    /// let port = client.local_addr().unwrap().port();
    /// // On loopback both sides are local.
    /// let rows = demux.connections("state established")?;
    /// assert_eq!(rows.iter().filter(|row| row.local.port() == port).count(), 1);
    /// assert_eq!(rows.iter().filter(|row| row.remote.port() == port).count(), 1);
    /// # Ok(()) }); }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where the filter cannot be
    /// understood, and where the maps cannot be read.
    pub fn connections(&self, filter: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.for_each_connection(&parse(filter)?, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Calls `visit` with every connection that a filter matches, as it is read; ends at its first
    /// error. No lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read, and what `visit` returns.
    pub fn for_each_connection(
        &self,
        filter: &Filter,
        mut visit: impl FnMut(Row) -> Result<()>,
    ) -> Result<()> {
        let tables = self.tables()?;
        Reader::new(&tables)?.for_each(|row| {
            if filter.matches(&row) {
                visit(row)
            } else {
                Ok(())
            }
        })
    }

    /// Ends the connections that a filter matches; an empty one is refused.
    ///
    /// # Errors
    ///
    /// As [`kill::kill`].
    pub fn kill(&self, filter: &str, extent: Extent) -> Result<Vec<Killed>> {
        kill::kill(&self.bpffs, &parse(filter)?, extent)
    }

    /// The local ports in use, and who owns them.
    ///
    /// # Errors
    ///
    /// As [`ports_in_use::ports_in_use`].
    pub fn ports(&self, wanted: &Wanted) -> Result<PortsInUse> {
        ports_in_use::ports_in_use(&self.bpffs, wanted)
    }

    /// The maps, to read; the lock is held only while they are opened.
    fn tables(&self) -> Result<Tables> {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(&self.bpffs, namespace.cookie(), Lock::Shared)?;
        Tables::open(&instance, Access::ReadOnly)
    }
}

fn parse(filter: &str) -> Result<Filter> {
    let words: Vec<String> = filter.split_whitespace().map(str::to_owned).collect();
    Filter::parse(&words)
}

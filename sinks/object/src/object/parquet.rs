//! Events as a Parquet file: row groups of bounded size, each written as soon as it is full.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{
    Compression as PageCompression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel,
};
use parquet::column::writer::ColumnWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use sink_api::Event;

use super::columns::{ATTRIBUTES, Column, Kind, REST, columns};
use super::rows::{Cells, Rows, Values};
use super::settings::Compression;

/// A row group ends with the row that reaches either.
const GROUP_ROWS_MAX: usize = 10_000;
const GROUP_BYTES_MAX: usize = 4 << 20;

const ZSTD_LEVEL: i32 = 3;

/// Always the same, so that the same events make the same file.
const CREATED_BY: &str = "trunkline";

pub(super) struct Parquet {
    fields: &'static [Column],
    rows: Rows,
    file: SerializedFileWriter<Pieces>,
}

/// What was written and not taken yet.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Parquet {
    /// A file for events of `action` alone.
    pub(super) fn new(action: &str, compression: Compression) -> Result<Self, ParquetError> {
        let fields = columns(action);
        let compression = match compression {
            Compression::None => PageCompression::UNCOMPRESSED,
            Compression::Zstd | Compression::Gzip => PageCompression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?),
        };
        let properties =
            WriterProperties::builder().set_compression(compression).set_created_by(CREATED_BY.to_owned()).build();
        let file = SerializedFileWriter::new(Pieces::default(), schema(fields)?, Arc::new(properties))?;
        Ok(Self { fields, rows: Rows::new(fields), file })
    }

    pub(super) fn add(&mut self, event: &Event) -> Result<(), ParquetError> {
        self.rows.add(event);
        if self.rows.count() >= GROUP_ROWS_MAX || self.rows.bytes() >= GROUP_BYTES_MAX {
            self.end_group()
        } else {
            Ok(())
        }
    }

    /// What can go out already.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.file.inner_mut().0)
    }

    /// What remains, with the file's footer.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        if self.rows.count() > 0 {
            self.end_group()?;
        }
        Ok(self.file.into_inner()?.0)
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::replace(&mut self.rows, Rows::new(self.fields));
        let mut group = self.file.next_row_group()?;
        for values in rows.into_values() {
            let mut column = group.next_column()?.expect("there are as many columns as values");
            write_column(column.untyped(), &values)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }
}

fn write_column(column: &mut ColumnWriter<'_>, values: &Values) -> Result<(), ParquetError> {
    let levels = values.levels.as_deref();
    match (column, &values.cells) {
        (ColumnWriter::ByteArrayColumnWriter(column), Cells::Text(cells)) => column.write_batch(cells, levels, None)?,
        (ColumnWriter::Int64ColumnWriter(column), Cells::Integer(cells)) => column.write_batch(cells, levels, None)?,
        (ColumnWriter::DoubleColumnWriter(column), Cells::Number(cells)) => column.write_batch(cells, levels, None)?,
        _ => unreachable!("cells are made for the schema's columns"),
    };
    Ok(())
}

fn schema(fields: &[Column]) -> Result<TypePtr, ParquetError> {
    let attributes = ATTRIBUTES.iter().map(|(name, kind, required)| column(name, *kind, *required));
    let of_data = fields.iter().map(|field| column(&field.name(), field.kind, false));
    let rest = [column(REST, Kind::Json, false)];
    let columns = attributes.chain(of_data).chain(rest).collect::<Result<Vec<TypePtr>, ParquetError>>()?;
    Ok(Arc::new(Type::group_type_builder("event").with_fields(columns).build()?))
}

fn column(name: &str, kind: Kind, required: bool) -> Result<TypePtr, ParquetError> {
    let (physical, logical) = match kind {
        Kind::Text | Kind::Json => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Time => (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
        Kind::Integer => (PhysicalType::INT64, None),
        Kind::Number => (PhysicalType::DOUBLE, None),
    };
    let repetition = if required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
    let column = Type::primitive_type_builder(name, physical).with_repetition(repetition).with_logical_type(logical);
    Ok(Arc::new(column.build()?))
}

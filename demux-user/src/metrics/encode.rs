//! Families as text, by way of prometheus-client.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeLabelValue as _, LabelEncoder,
        LabelSetEncoder, MetricEncoder, NoLabelSet, text,
    },
    metrics::MetricType,
    registry::Registry,
};

use super::family::{Family, Kind, Label, Value};

/// The text of OpenMetrics, with its end. Families without values are left out.
pub(super) fn encode(families: &[Family]) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families.to_vec())));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                match family.kind {
                    Kind::Info => metric.encode_info(&Labels(labels))?,
                    _ if labels.is_empty() => write(*value, family.kind, &mut metric)?,
                    _ => {
                        let labels = Labels(labels);
                        write(*value, family.kind, &mut metric.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn write(value: Value, kind: Kind, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Integer(value)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (Kind::Counter, Value::Real(value)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (_, Value::Integer(value)) => metric.encode_gauge(&value),
        (_, Value::Real(value)) => metric.encode_gauge(&value),
    }
}

#[derive(Debug)]
struct Labels<'l>(&'l [Label]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for label in self.0 {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl EncodeLabel for Label {
    fn encode(&self, mut encoder: LabelEncoder<'_>) -> fmt::Result {
        let mut key = encoder.encode_label_key()?;
        fmt::Write::write_str(&mut key, self.name)?;
        let mut value = key.encode_label_value()?;
        self.value.as_ref().encode(&mut value)?;
        value.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_form() {
        let mut packets = Family::counter("demux_packets", "Packets.");
        packets.add([Label::new("interface", "e\"h\\0\n")], 3_u64);
        packets.add([Label::new("interface", "lo")], u64::MAX);
        let families = [
            Family::info("demux_build", "Version.").with([Label::new("version", "1")], 1_u64),
            packets,
            Family::gauge("demux_fill_ratio", "Fill.").with([], 0.5),
            Family::gauge("demux_nothing", "Nothing."),
        ];
        assert_eq!(
            encode(&families),
            "# HELP demux_build Version.\n# TYPE demux_build info\n\
             demux_build_info{version=\"1\"} 1\n\
             # HELP demux_packets Packets.\n# TYPE demux_packets counter\n\
             demux_packets_total{interface=\"e\\\"h\\\\0\\n\"} 3\n\
             demux_packets_total{interface=\"lo\"} 18446744073709551615\n\
             # HELP demux_fill_ratio Fill.\n# TYPE demux_fill_ratio gauge\n\
             demux_fill_ratio 0.5\n# EOF\n"
        );
    }
}

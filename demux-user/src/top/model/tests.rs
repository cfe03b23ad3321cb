//! Keys and samples, and what is shown then.

use std::path::PathBuf;

use super::{
    super::{
        Column,
        samples::{connection, model, snapshot},
    },
    *,
};

/// The numbers of the hosts at the other ends, in the order of the rows.
fn hosts(model: &Model) -> Vec<u8> {
    let snapshot = model.snapshot().unwrap();
    let rows = model
        .order()
        .iter()
        .map(|&place| &snapshot.connections[place].row);
    rows.map(|row| match row.remote.ip() {
        std::net::IpAddr::V4(address) => address.octets()[3],
        other => panic!("{other}"),
    })
    .collect()
}

fn press(model: &mut Model, keys: &[Key]) -> Vec<Action> {
    keys.iter().map(|&key| model.press(key)).collect()
}

fn write(model: &mut Model, text: &str) {
    for character in text.chars() {
        assert_eq!(model.press(Key::Char(character)), Action::Draw);
    }
}

#[test]
fn the_busiest_come_first_and_last_when_turned_around() {
    let mut model = model();
    assert_eq!(hosts(&model), [2, 1, 3]);
    assert_eq!(model.press(Key::Char('r')), Action::Want);
    assert_eq!(hosts(&model), [3, 1, 2]);
    assert!(model.wanted().selection.sort.is_reversed);
}

#[test]
fn columns_follow_each_other_around() {
    let mut model = model();
    let columns = View::Connections.columns();
    for _ in columns {
        assert_eq!(model.press(Key::Char('s')), Action::Want);
    }
    assert_eq!(model.sort(), Sort::initial(View::Connections));
    press(&mut model, &[Key::Char('<'), Key::Char('>')]);
    assert_eq!(model.sort(), Sort::initial(View::Connections));
    press(&mut model, &[Key::Char('>')]);
    assert_eq!(model.sort().column, Column::RxRate);
}

#[test]
fn each_view_has_its_own_order() {
    let mut model = model();
    press(&mut model, &[Key::Char('r'), Key::Tab]);
    assert_eq!(model.view(), View::Bindings);
    assert!(!model.sort().is_reversed);
    // All bindings are here already.
    assert_eq!(model.press(Key::Char('s')), Action::Draw);
    press(&mut model, &[Key::Char('3')]);
    assert_eq!((model.view(), model.order()), (View::Counters, &[0][..]));
    press(&mut model, &[Key::Tab]);
    assert_eq!(hosts(&model), [3, 1, 2]);
    press(&mut model, &[Key::BackTab]);
    assert_eq!(model.view(), View::Counters);
}

#[test]
fn a_filter_holds_from_the_moment_it_is_applied() {
    let mut model = model();
    press(&mut model, &[Key::Char('/')]);
    write(&mut model, "state time-wait");
    assert_eq!(hosts(&model), [2, 1, 3]);
    assert_eq!(model.press(Key::Enter), Action::Want);
    assert_eq!(hosts(&model), [3]);
    assert_eq!(model.filter(), "state time-wait");
    assert!(!model.wanted().selection.filter.is_empty());
}

#[test]
fn a_wrong_filter_changes_nothing_and_stays_to_be_mended() {
    let mut model = model();
    press(&mut model, &[Key::Char('/')]);
    write(&mut model, "lport");
    assert_eq!(model.press(Key::Enter), Action::Draw);
    let editor = model.editor().unwrap();
    assert_eq!(editor.text(), "lport");
    assert!(editor.error.is_some());
    assert!(model.wanted().selection.filter.is_empty());
    write(&mut model, " 80");
    assert_eq!(model.editor().unwrap().error, None);
    assert_eq!(model.press(Key::Enter), Action::Want);
    press(&mut model, &[Key::Char('/'), Key::Clear]);
    assert_eq!(model.press(Key::Escape), Action::Draw);
    assert_eq!(model.filter(), "lport 80");
}

#[test]
fn a_pause_keeps_the_sample() {
    let mut model = model();
    assert_eq!(model.press(Key::Char('p')), Action::Want);
    assert!(model.wanted().is_paused);
    // One that was on its way.
    model.take(Ok(snapshot(Vec::new()))).unwrap();
    assert_eq!(hosts(&model), [2, 1, 3]);
    assert_eq!(model.press(Key::Char(' ')), Action::Want);
    model.take(Ok(snapshot(Vec::new()))).unwrap();
    assert_eq!(hosts(&model), [0_u8; 0]);
}

#[test]
fn the_selection_stays_with_its_row() {
    let mut model = model();
    model.set_page(10);
    press(&mut model, &[Key::Down]);
    assert_eq!(model.shown().selected, 1);
    // The first host overtakes.
    let busier = vec![
        connection(1, 500.0),
        connection(2, 90.0),
        connection(3, 0.0),
    ];
    model.take(Ok(snapshot(busier))).unwrap();
    assert_eq!((hosts(&model), model.shown().selected), (vec![1, 2, 3], 0));
    // It ends, and whichever takes its place is selected.
    model
        .take(Ok(snapshot(vec![connection(2, 90.0), connection(3, 0.0)])))
        .unwrap();
    assert_eq!(model.shown().selected, 0);
    press(&mut model, &[Key::End]);
    assert_eq!(model.shown().selected, 1);
    // Home stays with the first, whichever that is.
    press(&mut model, &[Key::Home]);
    model
        .take(Ok(snapshot(vec![connection(2, 1.0), connection(3, 9.0)])))
        .unwrap();
    assert_eq!((hosts(&model), model.shown().selected), (vec![3, 2], 0));
}

#[test]
fn scrolling_keeps_the_selection_on_the_screen() {
    let mut model = model();
    let many = (0..100).map(|number| connection(number, f64::from(100 - number)));
    model.take(Ok(snapshot(many.collect()))).unwrap();
    model.set_page(10);
    let place = |model: &Model| (model.shown().first, model.shown().selected);
    assert_eq!(place(&model), (0, 0));
    press(&mut model, &[Key::Up]);
    assert_eq!(place(&model), (0, 0));
    press(&mut model, &[Key::PageDown]);
    assert_eq!(place(&model), (1, 10));
    press(&mut model, &[Key::End]);
    assert_eq!(place(&model), (90, 99));
    press(&mut model, &[Key::Down, Key::PageDown]);
    assert_eq!(place(&model), (90, 99));
    press(&mut model, &[Key::PageUp]);
    assert_eq!(place(&model), (89, 89));
    // A smaller screen, and then a larger one than there are rows.
    model.set_page(3);
    assert_eq!(place(&model), (89, 89));
    model.set_page(200);
    assert_eq!(place(&model), (0, 89));
    press(&mut model, &[Key::Home]);
    assert_eq!(place(&model), (0, 0));
}

#[test]
fn details_are_of_the_selected_connection_and_outlive_it() {
    let mut model = model();
    press(&mut model, &[Key::Down, Key::Enter]);
    let shown = |model: &Model| match model.overlay() {
        Some(Overlay::Details(line, is_present)) => (
            line.row.remote.to_string(),
            line.row.state.name(),
            *is_present,
        ),
        other => panic!("{other:?}"),
    };
    let remote = "192.0.2.1:40000".to_owned();
    assert_eq!(shown(&model), (remote.clone(), "ESTABLISHED", true));
    model.take(Ok(snapshot(vec![connection(2, 1.0)]))).unwrap();
    assert_eq!(shown(&model), (remote, "ESTABLISHED", false));
    assert_eq!(model.press(Key::Char('q')), Action::Draw);
    assert!(model.overlay().is_none());
    assert_eq!(model.press(Key::Char('q')), Action::Quit);
}

#[test]
fn help_takes_the_keys_that_lead_out_of_it() {
    let mut model = model();
    press(&mut model, &[Key::Char('?'), Key::Down, Key::Down, Key::Up]);
    assert!(matches!(model.overlay(), Some(Overlay::Help)));
    assert_eq!(model.scroll(), 1);
    model.limit_scroll(5, 10);
    assert_eq!(model.scroll(), 0);
    // A pause is possible everywhere.
    assert_eq!(model.press(Key::Char('p')), Action::Want);
    assert_eq!(model.press(Key::Escape), Action::Draw);
    assert!(model.overlay().is_none());
}

#[test]
fn keys_of_the_terminal_work_everywhere() {
    let mut model = model();
    for opened in [None, Some(Key::Char('/')), Some(Key::Char('?'))] {
        if let Some(key) = opened {
            model.press(key);
        }
        assert_eq!(
            press(&mut model, &[Key::Suspend, Key::Redraw, Key::Interrupt]),
            [Action::Suspend, Action::Redraw, Action::Quit]
        );
        model.press(Key::Escape);
    }
}

#[test]
fn intervals_have_steps_and_ends() {
    let mut model = model();
    let mut seen = Vec::new();
    while model.press(Key::Char('+')) == Action::Want {
        seen.push(model.interval().as_millis());
    }
    assert_eq!(seen, [2000, 5000, 10_000, 30_000, 60_000, 300_000]);
    while model.press(Key::Char('-')) == Action::Want {}
    assert_eq!(model.wanted().interval, Duration::from_millis(100));
}

#[test]
fn what_was_unloaded_is_waited_for_and_other_errors_end_it() {
    let mut model = model();
    model.take(Err(Error::NotLoaded)).unwrap();
    assert!(model.snapshot().is_none());
    assert!(model.notice().unwrap().contains("waiting"));
    assert_eq!(model.shown().rows, 0);
    for key in [Key::Down, Key::End, Key::Enter, Key::Char('s'), Key::Tab] {
        model.press(key);
    }
    model.take(Ok(snapshot(Vec::new()))).unwrap();
    assert_eq!(model.notice(), None);
    let other = Error::LayoutMismatch {
        path: PathBuf::new(),
        found: "5".into(),
        expected: "4".into(),
    };
    assert!(model.take(Err(other)).is_err());
}

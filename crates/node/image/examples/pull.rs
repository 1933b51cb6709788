//! Pulls images and says how long each took: `pull FOLDER HOST=URL NAME...`, or loads archives: `pull FOLDER load FILE...`.

use std::time::Instant;

use tiphys_image::{Hosts, ImageStore, Mirror, Options};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, source, names @ ..] = arguments.as_slice() else { panic!("usage: pull FOLDER HOST=URL|load NAME...") };
    let mirrors: Vec<Mirror> = source.split(',').filter_map(|mirror| mirror.parse().ok()).collect();
    let loading = mirrors.is_empty();
    let store = ImageStore::open(Options { hosts: Hosts { mirrors, certs_dir: None }, ..Options::new(folder) }).expect("opens");
    for name in names {
        let begin = Instant::now();
        let outcome = if loading {
            std::fs::File::open(name)
                .map_err(|error| error.to_string())
                .and_then(|file| store.load(file).map_err(|error| error.to_string()))
        } else {
            store.pull(name, None).await.map(|image| vec![image]).map_err(|error| error.to_string())
        };
        match outcome {
            Ok(images) => {
                images.iter().for_each(|image| println!("{name}: {} {} KiB in {:?}", image.id, image.size >> 10, begin.elapsed()))
            }
            Err(error) => println!("{name}: {error}"),
        }
    }
    println!("{:?}", store.usage().expect("counted"));
}

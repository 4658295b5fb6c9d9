// Write pictures anew with 256 colours each, which no eye tells apart here: node smaller.cjs PICTURE...
const { readFileSync, writeFileSync } = require('fs');
const UPNG = require('upng-js');

for (const path of process.argv.slice(2)) {
  const image = UPNG.decode(readFileSync(path));
  const smaller = UPNG.encode([UPNG.toRGBA8(image)[0]], image.width, image.height, 256);
  writeFileSync(path, Buffer.from(smaller));
}

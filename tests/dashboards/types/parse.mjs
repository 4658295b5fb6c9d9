// Reads a list of queries from stdin, and writes the tree of each: nodes with their name, text and children.
import { readFileSync } from "node:fs";

const { parser } = await import(`@grafana/lezer-${process.argv[2]}`);

function tree(query) {
  const of = (node) => {
    const children = [];
    for (let child = node.firstChild; child; child = child.nextSibling) children.push(of(child));
    return { name: node.type.name, text: query.slice(node.from, node.to), error: node.type.isError, children };
  };
  return of(parser.parse(query).topNode);
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(tree)));

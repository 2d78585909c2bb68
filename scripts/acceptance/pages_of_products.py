"""A list is read page by page while it grows: nothing is shown twice, nothing is left out."""

import re
import urllib.request
from uuid import uuid4

from story import URL, admin, given, passed, then, when

given("seven products of one name and price")
name = f"Paged {uuid4().hex}"


def add(price: str) -> str:
    body = {"name": name, "price": price, "stock": 1}
    return admin("POST", "/admin/products", body).body["id"]


made = {add("5.00") for _ in range(7)}
then(len(made) == 7, "seven, with ids of their own")

when("they are listed two to a page, cheapest first, while cheaper ones are added")
seen: list[str] = []
url = f"{URL}/products?q={name.replace(' ', '%20')}&sort_by=price&sort_desc=false&limit=2"
while url:
    with urllib.request.urlopen(url, timeout=30) as page:
        found = re.findall(r'"id":"([^"]+)"', page.read().decode())
        link = re.search(r"<([^>]+)>; rel=\"next\"", page.headers.get("Link") or "")
    seen += found
    url = link and (link[1] if link[1].startswith("http") else URL + link[1])
    add("4.00")
then(len(seen) == len(set(seen)), "no product is shown twice")
then(set(seen) == made, "all seven are shown, and none that came before its turn")
passed()

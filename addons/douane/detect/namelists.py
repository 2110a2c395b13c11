"""The lists that names are looked up in: given names and surnames from Faker's locales, and what is a word too.

Law: nothing of a list is kept here; Faker brings them, and they are read once in a process, when the first scanner wants them
(a quarter of a second, 5 MB). What stands here are words that make a name doubtful or say that it is none."""

import importlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

__all__ = ["BEFORE_NAMES", "NO_SURNAMES", "OF_PLACES", "OF_WORK", "PARTICLES", "ROLES", "TITLES", "Lists", "is_word", "lists"]

_LOCALES = (
    "en", "en_US", "en_GB", "en_IE", "en_NZ", "en_IN", "en_PK", "en_KE", "en_NG", "de_DE", "de_AT", "de_CH", "fr_FR",
    "fr_BE", "fr_CA", "es_ES", "es_MX", "es_AR", "es_CO", "it_IT", "pt_BR", "pt_PT", "nl_NL", "nl_BE", "pl_PL", "sv_SE",
    "da_DK", "no_NO", "fi_FI", "cs_CZ", "sk_SK", "sl_SI", "hr_HR", "hu_HU", "ro_RO", "tr_TR", "id_ID", "is_IS", "de_LU",
    "fr_CH", "fr_QC", "fr_DZ", "es_CA", "es_CL", "et_EE", "lt_LT", "lv_LV", "ga_IE", "az_AZ", "uz_UZ", "tw_GH", "yo_NG",
    "ig_NG", "ha_NG", "ja_JP", "zh_CN")
_WORD = re.compile(r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DOUBTFUL = _words("""
    Ab Abb Abe Ability Able Abri Abril Ace Acme Ada Adagio Adi Adis Afer Africa Ah Aki Al Ala Alba Albany Ale Alexa
    Alexandria Ali Alien Alive Alma Alpha Alta Alto Amazon Amber America Amin Amor An Ana Anal Angel Angle Annual Apollo
    Apple April Ar Ara Arc Arch Argentina Argu Aria Ariel Arizona Ark Art Artifact Ash Asia Aspen At Athena Atlas Atom Au
    Auburn August Aura Aurora Austin Author Auto Autumn Ava Avalon Azure Babel Baby Bali Ball Banks Baron Bart Bas Base
    Bass Bay Beat Beaver Bebe Beck Bee Begin Bell Bella Belle Bent Berg Berkeley Berkley Berlin Bern Berry Best Beta
    Bethel Bey Bible Bill Bing Bird Birk Bit Bitten Blair Blaze Bless Blessing Bliss Blue Bo Bolden Bond Bonn Boon Boss
    Boston Bowie Boy Brain Branch Brand Brandy Bravo Bree Breeze Brick Bridge Bright Brighton Bristol Britain Brook
    Brooklyn Brooks Brown Bruno Buck Bud Buddy Buffy Bunny Burl Burn Burns Buster Byte Cadence Cal Call Cam Camber Camden
    Camera Can Candy Cap Car Card Carey Cargo Carolina Carry Carson Cas Case Casey Cash Casper Cat Cedar Celesta Celestial
    Century Chad Chain Chance Chandler Change Channel Charisma Charity Chase Chat Che Chelsea Cherry Chet Cheyenne Chi
    Chile China Chip Christ Christian Christmas Chrome Chrystal Chuck Church Cinder Cinnamon City Claude Clay Clear
    Clementine Cleveland Cliff Clover Coast Coco Code Cola Colombia Colon Color Colt Columbia Columbus Commander Con
    Concordia Conn Constance Constant Cook Cooper Coral Cord Cornell Corona Corp Cosmo Cosmos Count Country Court Cove Coy
    Craft Crystal Cuba Curry Cy Cyan Cyrus Daemon Dagger Daily Daisy Dakota Dale Dallas Dame Danger Dart Darwin Dash Data
    Dates Dawn Dax Day Dayton Deal Dean Deb Dee Deed Deer Deja Del Dell Delphi Delphine Delta Demi Den Denim Denmark Deno
    Denver Der Desire Destiny Dev Devi Dexter Diamond Dice Dick Diesel Digital Dink Dior Divine Django Do Doc Dock Docker
    Doctor Doe Dom Domain Don Dorado Dot Dove Drake Drew Drive Du Duke Dusty Dutch Duty Earl Early Earth East Easter
    Easton Ebb Echo Ed Eden Edge Edison Edit Egypt El Elan Elastic Elba Elder Element Elf Elif Elle Ellipse Else Em Ember
    Emerald Emit Enola Epiphany Era Es Essence Essex Estate Eta Eternity Ether Eureka Euro Europa Europe Eve Ever Everest
    Exa Fable Fair Faith Falcon Fall Fallon Fame Fantasia Fate Favor Feather Fed Felicity Fern Ferry Fiat Field Fiesta Fig
    Fin Finland Fire Firefly Fleet Fleur Flint Flo Floor Flora Florence Florida Fog Ford Forest Forrest Fortune Forum Fox
    Foy France Freed Freedom French Friend Frost Future Gaia Galaxy Gale Garden Garnet Garrison Gates Gauge Gay Gear Gem
    Gemini Gemma Gene General Genesis Geneva Genius Genoa Geo George Georgia Gerber German Germany Ginger Glad Glen Glory
    Go Goes Gold Golden Good Google Governor Grace Grant Gray Greece Green Grey Grok Grove Guard Guest Guild Guitar Gun
    Guy Gypsy Hades Hadoop Hal Hale Hall Ham Happy Harbor Hardy Harm Harmony Harsh Hart Harvest Haskell Haven Hawk Hazard
    Heath Heaven Hedge Helix Helm Hence Henna Hera Herb Heritage Hero Hidden Hill Hit Hobart Holiday Holland Honda Honey
    Honor Hope House Houston Hoy Hub Hudson Hunt Hunter Ica Ice Icon Ila Illinois Ima Image In Ina India Indiana Indigo
    Indy Ine Inge Ink Io Ion Iowa Ira Iran Ireland Iris Irish Is Isa Isis Island Isle Israel It Italia Italy Ivory Ivy Ize
    Jackal Jackson Jade Jaguar Jam Jamaica Jan January Janus Japan Jasmine Jasper Java Jazz Jeep Jenkins Jersey Jerusalem
    Jest Jet Jewel Jira Job Johannesburg Joke Jolly Jordan Joule Journey Jubilee Judge Jules July June Juniper Jupiter
    Justice Kafka Kai Kale Kali Kansas Karma Kelvin Kent Kentucky Kenya Key Khan Kick Kid King Kingston Kirby Kit Kitty
    Kiwi Knight Ko Koala Kobe Kona Korea Kubernetes Kyoto La Lab Lace Ladino Lady Lake Lamb Lambda Lan Lance Land Lane
    Laravel Lark Laser Latin Latitude Laurel Lavender Law Lawn Le Lea Leaf Lean Leaner Legacy Legend Legion Lemma Lemon
    Lens Less Lex Lexis Lexus Liberty Lie Lien Life Light Lilac Lim Lima Lime Lincoln Linden Line Link Lion Lisbon Lit
    Little Llama Lo Loan Lode Log Logan London Lone Long Loom Lord Lore Lot Lotus Louisiana Love Lovely Lucene Lucid Luck
    Lucky Luma Lumen Luna Lush Lux Luz Lyric Mac Macon Mad Madden Madison Madras Madrid Mae Mage Magenta Magic Magnolia
    Mai Maj Major Mal Male Mali Malta Mamba Man Manual Maple Mar Marble March Mari Marigold Marina Marine Mark Market
    Marketta Marlin Maroon Marquis Mars Marsh Marshal Marshall Mart Martini Marvel Maryland Mason Master Mat Mate Math
    Matrix Matter Maven Maverick Max Maxim Maximo May Meadow Med Media Mel Melbourne Melody Memory Memphis Mercedes Merch
    Mercury Mercy Merge Meridian Merit Merlin Merry Meta Metro Mexico Mi Miami Mica Milan Miles Milky Mill Miller Mind
    Mine Minor Mint Minute Miracle Miss Mission Mist Mistral Misty Mixtral Mo Mocha Mode Modern Modesty Moll Monaco Monet
    Money Mongo Monroe Montana Monte Montreal Moon Moor Moore More Morning Moscow Moss Most Mount Mouse Mozart Mr Muse
    Music Mustang My Myrtle Myst Mystery Mystic Nail Nan Napoleon Nas Nat Native Nato Nature Nebula Nemo Neo Neon Neptune
    Nest Net Nevada New Newt Newton Nice Night Nike Nile Nim Nimbus No Noble Node Noir None Nor North Norway Note Nova
    Novella November Oak Oasis Obey Ocean October Odd Odyssey Ok Okay Olive Olympia Om Omega On One Online Onyx Opal Opera
    Ora Oracle Orange Orchid Order Oregon Org Orion Orlando Osa Oslo Otter Ox Oxford Pace Pacific Page Palm Palmer Panda
    Pandora Pansy Paradise Paris Parish Park Parker Parsley Parson Pascal Pat Patch Path Patience Patient Patriot Paw Pax
    Payton Peace Peach Pearl Pebble Peer Penn Penny Pepper Per Perl Perla Person Peru Petal Petra Phi Philadelphia Phoenix
    Pi Pia Pierce Pike Pilot Pine Pink Pip Piper Pixie Plato Play Pleasant Pluto Poem Poet Pol Poland Pole Polo Pool Poppy
    Port Portal Porter Portia Portland Portugal Postman Prague Praise Preciosa Precious Press Preston Price Pride Prime
    Primrose Primus Prince Princess Priority Pro Promise Proper Prosper Proxy Prudence Puck Puma Puppet Purl Python
    Quality Quartz Queen Quest Quill Qwen Rabbit Rails Rain Rainbow Raja Rally Ram Ran Rand Ranger Rapid Ras Raven Real
    Reason Red Redis Redwood Reed Reef Regal Regina Region Reno Replica Republic Rex Rhapsody Rhode Rice Rich Richmond
    Ride Ridge Riga Rigel Ring Rio Rise Ritt River Rivers Road Robin Rock Rocky Rod Rodeo Roll Roma Roman Romance Rome
    Romeo Root Rose Rosemary Rough Rover Rowan Royal Ruby Rue Rufus Run Rush Russia Rust Rusty Sad Saga Sage Sahara Sail
    Saint Sal Salem Samba Sand Sandy Santa Sapphire Sari Sass Satin Saturn Savage Savannah Scala Scarlet Scarlett School
    Science Scot Scout Sea Seal Season See Selenium Sem Senna September Sequel Sequoia Ser Serene Sergeant Serif Server
    Seven Shade Shadow Shah Shark Sharp Shell Shelter Sheriff Shine Shore Short Shy Sicily Sienna Sierra Sigma Signe
    Silence Silica Silk Silver Sim Simple Sing Sir Siri Siv Skip Sky Skye Skylar Slate Sly Smart Snow Sol Solar Solaris
    Sole Solomon Son Sonata Song Sonnet Soul South Spain Spark Sparrow Spencer Spike Spirit Spree Spring Stack Stanford
    Star Starr States Steam Steel Step Sterling Stetson Steward Stone Stony Storm Story Street Strong Success Summer
    Summit Sun Sunday Sunny Sunshine Surf Suse Swan Sweden Sweet Swift Switzerland Sydney Sylvan Symphony Sys Tab Tad Tai
    Tal Talent Tall Tally Tampa Tan Tango Tanner Tar Tate Tax Te Tea Teal Tee Telly Temp Tempest Temple Tennessee Tensor
    Terra Tex Texas Thai The Thea Theta Thin Thistle Thor Thorn Thunder Thyme Ti Tide Ties Tiger Tilda Tilde Tile Till
    Tilt Timber Time Tiny Titan Titus To Token Toledo Tone Tor Torch Toronto Torrey Tory Town Toy Trace Tracer Trading
    Train Travis Tre Treasure Treasury Tree Trek Trello Trinity Trip Triton Troy True Trust Tucker Tucson Tuesday Tulip
    Turing Turk Turkey Turner Tux Twins Ty Ula Ultra Una Under Unique Unit United Unity Unknown Unnamed Uno Unreal Ursa Us
    Utah Vagrant Val Vale Valencia Valley Valor Van Vane Vault Vega Vela Velvet Venice Venus Verde Verdi Verily Verity
    Vermont Verona Vesper Vesta Vi Via Vic Victor Victoria Victory Vide Vienna Viking Villa Ville Viola Violet Virgin
    Virginia Virgo Vista Vita Viva Voice Volga Von Wade Wales Walker Wane Ward Warp Wash Washington Water Watson Watsonx
    Watt Wave Way Wayland Weaver West Weston Wheat White Wick Wiki Wild Wilder Will Willow Win Wind Windy Wing Wings
    Winner Winter Wisdom Wise Wit Wolf Wolfram Wonder Wong Wood Woods Woody Word Worth Wren Wright Wyoming Xena Xi Yam
    Yaml Ye Yoga York You Young Yu Zapier Scene Morgan Wells Salvador Stanley Emin Taylor Sami Julian Residence Zed Zen Zenith
    Zephyr Zero Zeta Zeus Zion Zip Zone Zoom Zulu Aba Albino América Ange Antons Ants Artis Austra Baba Bale Blanche Celeste
    Chao Clair Coleman Comfort Conan Custodio Dace Dai Daniels Duma Dunia Ene Esi Fang Florentine Francia Gaby Gang Gifty
    Goda Hermes Hilal Ide Ige Imron Inta Ita Jerman Jie Jing Kada Kana Kondo Krishna Lei Lenin Leons Linas Loreto Macs
    Madina Malak Manus Martial Matas Mati Miki Min Ming Montserrat Muslim Muslima Nieves Niks Nil Nuru Oba Oke Ona Orna Pau
    Ping Rabi Rasa Reda Redmond Rein Reine Rida Rim Roberts Rona Rosy Rossa Rua Safari Sani Segundo Sima Sona Tade Tao Taro
    Titas Toki Toms Tutu Valid Williams Xia Yang Yaw Yui Zaman""")
"""Given names that are words, months, places, products or colours: they count with a surname from the list beside them."""

NO_SURNAMES = _words("""
    A About After Again All Also Although Always Am And Any Are Article As Ask At Be Because Been Before Both But By Can
    Cannot Chapter Could Did Do Does Each Either Else Email End Error Even Every Example False Figure Fig Finally First
    Following For From Get Give Had Has Have He Hello Hence Her Here Hers Hi His How However I If In Into Is It Its Just
    Last Later Let Like Made Make Many May Maybe Me Mine More Most Much Must My Name Neither Never New Next No None Nor
    Not Note Now Of Off On Once One Only Or Other Otherwise Our Ours Out Over Page Part Perhaps Phone Please Possibly
    Related Same Second Section See Shall She Should Show Since So Some Still Subject Such Sure Table Take Tell Thank
    Thanks That The Their Them Then There These They This Those Though Thus To Today Tomorrow Too True Until Up Us Use
    Very Was We Well Were What When Where Whether Which While Who Whom Whose Why Will With Without Would Yes Yesterday Yet
    You Your Yours Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April June July August
    September October November December Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Wed Thu Fri Sat English
    German French Spanish American British European Chinese Dear Regards Best Sincerely Cheers Hey Mr Mrs Ms Miss Dr Prof
    Sir Madam Address City Country State Zip Email Tel Fax Dob Birthday Age Customer Order Account Invoice Ticket Number
    Id Code Date Time API URL HTTP JSON Python Java JavaScript Google Microsoft Apple Amazon Facebook Twitter Linux
    Windows Mac Unix Git GitHub Docker CEO CTO CFO COO VP PhD MD""")
"""What is no surname behind a given name, though it begins with a capital."""

OF_PLACES = _words("""
    Street St Road Rd Avenue Ave Lane Drive Boulevard Blvd Square Court Place Way Highway Bridge Park Gardens Hill Hills
    Valley River Lake Creek Bay Beach Island Islands Mountain Mountains Falls Forest Desert Ocean Sea Coast City County
    Town Village Township Heights Airport Station Terminal Hospital Clinic Hotel Inn University College School Academy
    Institute Library Museum Theatre Theater Hall House Tower Towers Center Centre Building Stadium Arena Church Cathedral
    Abbey Castle Palace Prison Cemetery Inc Incorporated Ltd Limited LLC LLP Corp Corporation Company Co GmbH AG SA NV BV
    Plc PLC Group Holdings Partners Associates Sons Brothers Bros Bank Capital Insurance Motors Airlines Foundation Trust
    Fund Society Association Union League Club Team Award Awards Prize Medal Cup Act Law Bill Theorem Lemma Conjecture
    Equation Algorithm Distribution Test Syndrome Disease Effect Constant Number Numbers Method Transform License Licence
    Protocol Standard Series Edition Day Week Month Festival War Wars Era Dynasty Sans Serif Mono Font Code Studio Server
    Cloud Engine Framework Project Products Systems Software Technologies Technology Solutions Services Consulting
    Industries International Press Times Post News Journal Magazine Records Games Store Stores Shop Market Restaurant Bar
    Cafe Grill Pizza Coffee Beer Wine Rock Model Models Mode Kit Pro Max Plus Mini Ultra Lite Wilde-Beest Republic Kingdom
    Province Region District Peninsula Rica Kong Zealand Korea Africa America Verde Lanka Arabia Francisco Angeles Diego
    Antonio Jose Paulo Janeiro Aires Plaza Mall""")
"""What makes the run of capitals before it a place, a firm or a thing."""

TITLES = _words("""
    Mr Mrs Ms Miss Mx Dr Prof Professor Doctor Sir Madam Dame Lady Lord Rev Reverend Father Fr Sister Hon Judge Justice
    Capt Captain Col Colonel Maj Lt Lieutenant Sgt Sergeant Cpl Gen Cmdr Adm Sen Senator Rep Gov President Chancellor Herr
    Frau Monsieur Mme Madame Mlle Señor Señora Señorita Sr Sra Srta Signor Signora Dott Don Doña Dom Dona Uncle Aunt
    Auntie Mister Nurse Officer Detective Inspector Coach Pastor Rabbi Imam Sheikh""")
"""What stands before a name, with or without a dot."""

PARTICLES = _words("""
    van von der den de del della di da dos das du la le ter ten te zu zur vom bin ibn al el ben af av y e i st""")
"""What may stand within a name without a capital."""

ROLES = _words("""
    director chairman chairwoman chairperson president chancellor minister secretary mayor governor ambassador senator
    congressman congresswoman mp spokesman spokeswoman spokesperson founder co-founder ceo cfo cto coo manager
    supervisor coordinator consultant adviser advisor analyst accountant auditor recruiter engineer developer designer
    architect scientist biologist physicist historian economist psychologist mathematician professor lecturer teacher
    tutor headmaster doctor physician surgeon dentist therapist pharmacist nurse lawyer attorney solicitor
    barrister judge magistrate prosecutor commissioner superintendent inspector detective constable officer sergeant
    lieutenant corporal captain colonel admiral commander coach trainer goalkeeper defender midfielder striker winger
    skipper batsman bowler quarterback pitcher champion actor actress singer rapper songwriter guitarist drummer pianist
    composer author writer novelist poet playwright painter sculptor artist photographer filmmaker editor journalist
    reporter correspondent columnist blogger presenter king queen prince princess emperor pope bishop archbishop
    cardinal rabbi imam husband wife son daughter father mother brother sister uncle aunt cousin nephew niece
    grandmother grandfather boyfriend girlfriend fiancé fiancée roommate flatmate friend colleague coworker co-worker
    neighbor neighbour tenant landlord landlady patient employee applicant suspect victim witness defendant plaintiff
    biochemist pastor""")
"""What somebody is, before the name: behind it, two words with a capital are one, where one of them is known for a name."""

OF_WORK = _words("""
    Accounts Acquisition Administration Affairs Analytics Applied Artificial Assistant Assurance Brand Business Change Clinical
    Commercial Communications Community Compliance Content Corporate Creative Data Delivery Design Development Digital
    Director Emeritus Engineer Engineering Enterprise Events Executive Experience Field Finance Financial Full General Global
    Growth Hardware Health Human Information Infrastructure Intelligence Investment Investor Key Learning Legal Machine
    Management Manager Managing Marketing Medical Mobile Network Nursing Operating Operations Partnerships People Platform
    Policy Procurement Product Program Programme Public Quality Regional Relations Research Resources Risk Sales Security
    Senior Service Strategic Strategy Success Supply Support Talent Technical Training User Vice Web""")
"""What somebody works at, behind what he is: no part of a name."""

BEFORE_NAMES = _words("""
    Hi Hey Hello Dear Thanks Thank Cheers Regards Sincerely Best Ask Tell Call Ping Cc And But So Then When If With For
    From To By Is Was Did Does Has Had Will Can Could Would Should Let Maybe Because While After Before Since As Or Yes No
    Ok Okay Sure Sorry Please Congrats Congratulations Welcome Goodbye Bye Love Yours Name Names Customer Client Patient
    Employee User Contact Attn Author Signed Re Fwd Colleague Manager Assistant Nurse Coach Brother Sister Mom Dad Cousin
    Meet Contacted Called Meeting Poor Happy Birthday My Our Your His Her Their Both Great Good Morning Evening Afternoon
    Where Who What Why How Not Only Even Just Now Today Tomorrow Yesterday Although Until Unlike""")
"""Words with a capital that may stand before a name, and are no part of one."""


_SURNAMES_TOO = _words("""
    Archer Arts Back Bacon Baker Ball Barber Barker Barrel Barrow Beach Beadle Bean Bear Beard Bells Berry Best Binder
    Bird Bishop Bitter Black Blank Block Blood Bloom Bolt Bone Bones Book Booker Boot Booth Bower Bowler Bowman Box
    Brace Bracket Branch Brand Bread Brewer Bridges Brief Broad Broker Brush Buckle Bugg Builder Bull Bunch Bunker
    Burden Burger Bush Bushel Butcher Butler Butter Button Cable Cage Cannon Cantor Capper Carder Carpenter Carrier
    Carter Carver Cash Caster Castle Castor Chain Chamber Chambers Chandler Chapman Charger Chart Checker Chew Child
    Childs Chin Chips Chopper Circle Clamp Clapp Clerk Clock Close Cloud Clutter Coach Coal Coats Coffee Coffin Coin
    Collar Collier Comer Contractor Corder Cork Corn Corner Cotton Couch Counts Cover Crab Crane Crisp Crook Cross Crow
    Crowder Crown Cruise Crump Crust Cup Curl Curry Cutter Dark Dart Dash Deep Dell Diver Doll Doors Down Downer Draper
    Dream Driver Drum Drummer Dry Duck Dyer Eagle Eco Ego Eldest English Ever Eye Farmer Fast Father Feather Feeder Fell
    Fellow Fielder Fields Filer Fish Fisher Flag Fletcher Flick Flood Flow Flower Flowers Fly Foot Force Forder Fore
    Forger Forget Fork Fort Foster Fowler Frame Frames Free Freeze Fresh Friday Fries Fry Fuller Funk Gamble Gamer
    Gardener Gardner Gates Gauge Gentle Glass Glover Goldsmith Gore Grain Granger Grater Grave Graves Greet Grid Grim
    Gross Grounds Grove Grubb Gun Gunner Guy Hack Hacker Hammer Hand Handler Hands Hanger Hardware Harper Hatch Hatcher
    Hay Head Heard Heart Herd Hide High Hitch Hoard Hobby Hock Hold Holder Hole Holes Holland Holly Hood Hook Hooker
    Hooks Hoop Hooper Horn Horse House Huff Hull Hunter Idle Index Iron Irons Jack Jester Jewel Join Joiner Joint Judge
    Jump Just Keen Keeper Kettle Key Keys Killer Kind King Kings Kitchen Kitchens Kite Knife Knight Knock Knuckles Lamb
    Lambda Lamp Land Lander Lane Lark Last Latch Lath Law Lawless Lawn Lawyer Leader Leaf Lean Leap Leather Legend Level
    Lever Lid Liner Linker List Lister Loader Lock Locke Locker Loop Loser Lover Low Lower Lump Lust Maker Mallow Marker
    Marks Marshal Mash Mason Masters Match Mayor Maze Meadows Means Meek Mercer Merchant Mess Messenger Meter Mew Mills
    Minder Miner Minter Mock Monk Monkey Moody Moot Mound Mullet Mum Nail Nailer Neat Neck Nettle Noon Nutter Oaks Oats
    Old Orange Outlaw Overall Pack Packer Padding Pagan Pages Pain Paine Painter Pair Palace Pan Pane Parent Parks
    Parson Parsons Partner Pass Paste Patch Patcher Paver Paw Pea Peacock Peak Peaks Pease Peel Pelt Pent Peppers Petty
    Pickle Piece Pierce Pigg Pillow Pinch Pipe Pipes Pitcher Pitt Place Plank Plant Planter Plate Player Plenty Plumb
    Plumber Plume Poke Ponder Poor Pope Post Poster Potter Pound Pounds Powder Power Powers Preacher Priest Prime Print
    Printer Prior Proctor Prophet Proudly Pruner Pull Pullen Purchase Purple Purse Push Putter Quick Quiet Quirk Rack
    Rail Rains Rake Rank Ransom Ray Razor Read Reader Ready Reap Recorder Reel Reeves Register Render Rest Rich Rider
    Rigger Right Ringer Risk Rivers Roach Road Rocker Roller Rook Room Roots Roper Rounder Router Rover Rows Rubble Ruff
    Ruler Runner Rusk Sack Saddler Sail Sailor Sale Sales Salmon Salt Salter Sample Samples Sands Savior Sawyer Say
    Scales Scholar School Score Scribner Scripture Sealer Search Seat Seed Seeds Self Sell Seller Sellers Sender Service
    Setter Settle Settler Sewer Shade Shanks Shape Shaver Shears Sheets Shelf Shepherd Shield Shields Shine Ship Shipper
    Shock Shoe Shoemaker Shoot Shop Shot Shreds Sides Sieve Sign Signs Silk Silver Simpler Singer Singles Singleton Sink
    Sitter Skill Skinner Skip Skipper Slack Slate Slater Slaughter Sleeper Sleeve Slider Slot Slow Small Smart Smiley
    Smoke Snap Snapp Snipe Snow Soldier Solo Soon Sorter Sower Space Spain Spark Sparks Spear Spears Speck Speed Spell
    Spells Spicer Spider Spike Spindle Spinner Split Sport Spot Spotts Springer Springs Spur Square Squires Stable Staff
    Stage Stall Stamp Stamper Standard Stands Staple Staples Stark Starks Starling States Steep Sticks Still Stock
    Stocker Stocks Stoker Stones Storage Store Storer Storey Stork Stout Stover Straight Strain Strand Strange Straw
    Stream Street Stretch Stringer Strip Stripling Strode Stroke Stub Stump Sublet Summers Summit Super Surface Swallow
    Swan Swank Swatch Sweat Sweeper Sweets Swim Sword Tab Tack Tailor Tank Tanks Tape Tapper Tasker Taster Teacher
    Teller Tempest Tender Tenor Term Terms Test Tester Thatcher Thick Thin Thorne Thrasher Thread Thrower Thumb Tick
    Tidy Tie Tiger Tight Tiler Timer Tinder Tinker Tipper Toast Tobacco Toller Toner Tong Tool Tooth Topper Torrent
    Touch Tower Towers Towns Tracer Track Trader Trail Trainer Trap Traveler Treat Trees Tremble Tribe Trick Trim
    Trimmer Trip Triplet Trotter Trout Truck Trunk Tub Tubbs Tuck Tune Turf Turn Turner Turtle Tweed Twig Twist Tyre
    Upright Usher Vail Vault Vest Vice Vine Visitor Void Volt Wager Wages Wait Waiter Wake Walk Walker Wall Waller Walls
    Warden Ware Warm Warrant Warrior Washer Waste Watch Watcher Waters Ways Weary Weather Weaver Webster Weed Weeks
    Weight Welcome Weld Welder Well Wheel Wheeler Whip Whisper Whistler Wick Wicker Wide Wider Widget Wilde Wiles Willow
    Winder Wine Winner Winters Wiper Wire Wiseman Wish Witty Wonders Wooden Woods Wool Words Worker Workman Works World
    Worm Worthy Wrench Writer Yard Yards Yeast Yell Yield Yoke""")
"""Surnames that are words, and so are no names by themselves: trades, things, what programs are made of."""
_WORDS = _DOUBTFUL | _SURNAMES_TOO | NO_SURNAMES | OF_PLACES | OF_WORK


def is_word(name: str) -> bool:
    """Whether *name* is as often a word, or a place's name."""
    return name in _WORDS


class Lists(NamedTuple):
    given: frozenset[str]
    """All given names, doubtful ones too."""
    sure: frozenset[str]
    """Those that are hardly anything else."""
    common: frozenset[str]
    """Of these, the ones that two countries have or English has: they are a name with nothing beside them."""
    surnames: frozenset[str]


@cache
def lists() -> Lists:
    """Read from Faker's person providers, once."""
    given: Counter[str] = Counter()
    surnames: set[str] = set()
    english: set[str] = set()
    for locale in _LOCALES:
        provider = vars(importlib.import_module(f"faker.providers.person.{locale}").Provider)
        first = _of(provider, "first_names", "first_romanized_names")
        given.update(first)
        surnames |= _of(provider, "last_names", "last_romanized_names")
        if locale in ("en_US", "en_GB"):
            english |= first
    every = frozenset(one for one in given if len(one) > 1 and one not in NO_SURNAMES)
    sure = frozenset(one for one in every if len(one) > 2 and one not in _DOUBTFUL and one not in OF_PLACES)
    common = frozenset(one for one in sure if given[one] > 1 or one in english)
    return Lists(every, sure, common, frozenset(one for one in surnames if one not in NO_SURNAMES and one not in OF_PLACES))


def _of(provider: Mapping[str, object], *kinds: str) -> set[str]:
    """The words with a capital of all lists of those *kinds* in a provider's class."""
    found: set[str] = set()
    for name, each in provider.items():
        if name.startswith(kinds) and isinstance(each, (tuple, list, dict, set, frozenset)):
            found.update(_WORD.findall("\n".join(map(str, each))))
    return {word for word in found if word[0].isupper()}
